"""Averaged pairs: partners by prompt and chosen answer, the rest counted."""

from pathlib import Path

import pytest

from sightline.builders.dataset_ops import average_datasets
from sightline.data.preference_dataset import read_pairs, write_preference_dataset
from sightline.errors import InputError
from sightline.records import Pair, append_rows, read_manifest


def folder(directory: Path, builder: str, *rows: tuple[str, str, str]) -> Path:
    pairs = [
        Pair(id=f"{number}/{builder}", prompt=prompt, chosen=chosen, rejected=rejected, builder=builder)
        for number, (prompt, chosen, rejected) in enumerate(rows)
    ]
    append_rows(directory / "pairs.jsonl", pairs)
    write_preference_dataset(directory)
    return directory


def test_partners_are_found_by_what_is_asked_and_chosen(tmp_path: Path) -> None:
    first = folder(
        tmp_path / "a", "external", ("?", "A cup.", "A pan."), ("?", "Two.", "Three."), ("!", "A hen.", "A cow.")
    )
    second = folder(
        tmp_path / "b", "bdhs", ("!", "A hen.", "A pig."), ("?", "A cup.", "A spoon."), ("?", "One.", "No.")
    )
    manifest = average_datasets(first, second, tmp_path / "out")
    told = [(pair.chosen, pair.rejected, pair.second_rejected) for pair in read_pairs(tmp_path / "out")]
    assert told == [("A cup.", "A pan.", "A spoon."), ("A hen.", "A cow.", "A pig.")]
    assert manifest.counts == {"pairs": 2} and manifest.dropped == {"no partner": 1}
    (tmp_path / "out/pairs.jsonl").unlink()  # what is left are the Parquet files
    assert [pair.second_rejected for pair in read_pairs(tmp_path / "out")] == ["A spoon.", "A pig."]
    assert average_datasets(first, second, tmp_path / "out") == read_manifest(tmp_path / "out")


def test_strangers_are_refused(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", "external", ("?", "A cup.", "A pan."))
    second = folder(tmp_path / "b", "bdhs", ("?", "A hen.", "A pig."))
    with pytest.raises(InputError, match=r"no pair of .* has one of the same prompt"):
        average_datasets(first, second, tmp_path / "out")
