"""Dataset operations: first or random rows with their images, and averaged pairs, whose partners are counted."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from sightline.builders.dataset_ops import TakeConfig, average_datasets, take_rows
from sightline.cli import app
from sightline.data.preference_dataset import PAIRS, read_pairs, write_preference_dataset
from sightline.data.samples import read_samples, write_samples
from sightline.errors import InputError
from sightline.records import Pair, Sample, append_rows, read_manifest, write_rows


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(10):
        Image.new("RGB", (4, 4), (number * 20, 0, 0)).save(folder / f"images/{number}.png")
        image, cluster = f"images/{number}.png", str(number)
        rows.append(
            Pair(
                id=f"p{number}", images=(image,), prompt="What?", chosen="A", rejected="B", cluster=cluster, builder="x"
            )
        )
    write_rows(folder / PAIRS, rows)
    write_preference_dataset(folder)
    return folder


def ids(directory: Path) -> list[str]:
    return [pair.id for pair in read_pairs(directory)]


def test_the_first_rows_or_drawn_ones(pairs: Path, tmp_path: Path) -> None:
    take_rows(pairs, TakeConfig(count=3), tmp_path / "first")
    assert ids(tmp_path / "first") == ["p0", "p1", "p2"]
    assert {path.name for path in (tmp_path / "first/images").iterdir()} == {"0.png", "1.png", "2.png"}
    drawn = [tmp_path / f"drawn-{seed}" for seed in (1, 1, 2)]
    for place, (seed, out) in enumerate(zip((1, 1, 2), drawn, strict=True)):
        take_rows(pairs, TakeConfig(count=5, random_seed=seed), out.with_name(f"{out.name}-{place}"))
    one, again, other = (ids(tmp_path / f"drawn-{seed}-{place}") for place, seed in enumerate((1, 1, 2)))
    assert one == again == sorted(one) and len(one) == 5 and one != other


def test_all_rows_and_more_than_all(pairs: Path, tmp_path: Path) -> None:
    assert take_rows(pairs, TakeConfig(count=10, random_seed=0), tmp_path / "all").counts == {"pairs": 10}
    with pytest.raises(InputError, match="holds 10 pairs, but count is 11"):
        take_rows(pairs, TakeConfig(count=11), tmp_path / "more")


def test_samples_are_taken_too_by_the_command(pairs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    (folder / "images").mkdir(parents=True)
    (folder / "images/a.png").write_bytes((pairs / "images/1.png").read_bytes())
    write_samples(folder, [Sample(id=str(n), images=("images/a.png",), prompt="?", cluster="a") for n in range(4)])
    out = tmp_path / "some"
    words = ["pairs", "take", str(folder), "--count", "2", "--random-seed", "3", "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and done.output.startswith("samples: "), done.output
    assert len(list(read_samples(out))) == 2 and read_manifest(out).stage == "samples take"
    assert CliRunner().invoke(app, words).exit_code == 0, "it is found done"


def write_pairs(directory: Path, builder: str, *rows: tuple[str, str, str]) -> Path:
    pairs = [
        Pair(id=f"{number}/{builder}", prompt=prompt, chosen=chosen, rejected=rejected, builder=builder)
        for number, (prompt, chosen, rejected) in enumerate(rows)
    ]
    append_rows(directory / "pairs.jsonl", pairs)
    write_preference_dataset(directory)
    return directory


def test_partners_are_found_by_what_is_asked_and_chosen(tmp_path: Path) -> None:
    first = write_pairs(
        tmp_path / "a", "external", ("?", "A cup.", "A pan."), ("?", "Two.", "Three."), ("!", "A hen.", "A cow.")
    )
    second = write_pairs(
        tmp_path / "b", "bdhs", ("!", "A hen.", "A pig."), ("?", "A cup.", "A spoon."), ("?", "One.", "No.")
    )
    manifest = average_datasets(first, second, tmp_path / "out")
    texts = [(pair.chosen, pair.rejected, pair.second_rejected) for pair in read_pairs(tmp_path / "out")]
    assert texts == [("A cup.", "A pan.", "A spoon."), ("A hen.", "A cow.", "A pig.")]
    assert manifest.counts == {"pairs": 2} and manifest.dropped == {"no partner": 1}
    (tmp_path / "out/pairs.jsonl").unlink()  # what is left are the Parquet files
    assert [pair.second_rejected for pair in read_pairs(tmp_path / "out")] == ["A spoon.", "A pig."]
    assert average_datasets(first, second, tmp_path / "out") == read_manifest(tmp_path / "out")


def test_strangers_are_refused(tmp_path: Path) -> None:
    first = write_pairs(tmp_path / "a", "external", ("?", "A cup.", "A pan."))
    second = write_pairs(tmp_path / "b", "bdhs", ("?", "A hen.", "A pig."))
    with pytest.raises(InputError, match=r"no pair of .* has a partner with the same prompt"):
        average_datasets(first, second, tmp_path / "out")
