"""Three layouts give the same pairs; splits and orders keep the share of matches; errors name their row."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sightline.config import load_config
from sightline.data.samples import read_samples
from sightline.errors import InputError
from sightline.recipes.matching.entities.layouts import (
    LAYOUTS,
    SPLITS,
    EntitySource,
    detect_layout,
    stratify,
    take_split,
)
from sightline.recipes.matching.entities.pairs import EntityPair, read_pair
from sightline.recipes.matching.entities.reading import ReadConfig, read_entities
from tests.data.entities.rows import LABELS, LEFT, RIGHT, write_csv, write_deepmatcher, write_one_file, write_wdc

FIRST = ("Two lamp descriptions follow. Do they stand for one and the same real-world lamp?\nFirst lamp: {}\n"
         "Second lamp: {}")  # fmt: skip


def read(place: Path, out: Path, *overrides: str, seed: int = 0) -> list[EntityPair]:
    read_entities(place, load_config(ReadConfig, None, ["noun=lamp", *overrides]), seed, out)
    return [read_pair(sample, "here") for sample in read_samples(out)]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("deepmatcher", lambda folder: write_deepmatcher(folder / "dm")),
        ("wdc", lambda folder: write_wdc(folder / "wdc", "lamps80cc20rnd000un_train_small.json.gz")),
        ("csv", lambda folder: write_one_file(folder / "lamps.csv")),
    ],
)
def test_every_layout_gives_the_pairs_that_were_written(
    name: str, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    place = write(tmp_path)
    assert detect_layout(place) == name
    found = list(LAYOUTS[detect_layout(place)].read(EntitySource(place, "train")))
    names = ("title", "brand", "price")
    wanted = [
        (dict(zip(names, LEFT[a], strict=True)), dict(zip(names, RIGHT[b], strict=True)), label == 1)
        for a, b, label in LABELS
    ]
    assert [(one.left, one.right, one.match) for one in found] == wanted
    assert len({one.id for one in found}) == 6


def test_a_sample_asks_by_the_training_prompt_and_knows_its_pair(tmp_path: Path) -> None:
    place = write_deepmatcher(tmp_path / "dm", "test")
    pairs = read(place, tmp_path / "out", "split=test", "fields=[brand, title]")
    by_id = {sample.id: sample for sample in read_samples(tmp_path / "out")}
    first = by_id["test-000002"]
    assert first.prompt == FIRST.format("Orba; Orba globe", "Orba globe 30 cm"), "a missing brand is left out"
    assert (first.reference, first.task, first.cluster) == ("Yes", "matching", "test-000002")
    assert by_id["test-000001"].reference == "No"
    assert sum(pair.match for pair in pairs) == 2 and pairs[0].noun == "lamp"


def test_parts_of_one_file_are_disjoint_and_have_their_shares(tmp_path: Path) -> None:
    """60 pairs, 20 match: 3 to 1 to 1 is 12, 4 and 4 matches and twice as many others."""
    place = write_one_file(tmp_path / "lamps.csv", copies=10)
    pairs = list(LAYOUTS["csv"].read(EntitySource(place, "train")))
    parts = {split: take_split(pairs, split, (3, 1, 1), 5) for split in SPLITS}
    assert [(len(part), sum(one.match for one in part)) for part in parts.values()] == [(36, 12), (12, 4), (12, 4)]
    assert sorted(one.id for part in parts.values() for one in part) == sorted(one.id for one in pairs)
    assert parts["train"] == take_split(pairs, "train", (3, 1, 1), 5) != take_split(pairs, "train", (3, 1, 1), 6)


def test_every_beginning_is_stratified(tmp_path: Path) -> None:
    pairs = list(LAYOUTS["csv"].read(EntitySource(write_one_file(tmp_path / "lamps.csv", copies=10), "train")))
    drawn = stratify(pairs, 3)
    assert sorted(one.id for one in drawn) == sorted(one.id for one in pairs)
    for count in range(1, 61):
        assert abs(sum(one.match for one in drawn[:count]) - count / 3) <= 1
    assert [one.id for one in drawn] != [one.id for one in stratify(pairs, 4)]
    few = read(tmp_path / "lamps.csv", tmp_path / "few", "split=train", "count=9", seed=1)
    assert len(few) == 9 and sum(one.match for one in few) == 3


def test_started_again_it_changes_nothing_and_other_settings_are_refused(tmp_path: Path) -> None:
    place = write_deepmatcher(tmp_path / "dm")
    once = read(place, tmp_path / "out", "split=train")
    before = (tmp_path / "out/samples.jsonl").stat().st_mtime_ns
    assert read(place, tmp_path / "out", "split=train") == once
    assert (tmp_path / "out/samples.jsonl").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="noun"):
        read(place, tmp_path / "out", "split=train", "noun=vase")


def spoiled(folder: Path) -> None:
    write_csv(folder / "train.csv", ("ltable_id", "rtable_id", "label"), [("a0", "b9", 1)])


@pytest.mark.parametrize(
    ("overrides", "spoil", "sentence"),
    [
        ((), spoiled, r"train\.csv line 2: rtable_id = b9 is not in .*tableB\.csv"),
        ((), lambda folder: write_csv(folder / "train.csv", ("ltable_id", "rtable_id", "label"), [("a0", "b0", "x")]),
         r"train\.csv line 2: label = 'x' is not a label; write 1 for a match"),
        ((), lambda folder: write_csv(folder / "tableA.csv", ("id", "title"), [("a0", "x"), ("a0", "y")]),
         r"tableA\.csv line 3: id a0 occurs twice"),
        ((), lambda folder: (folder / "train.csv").write_text("ltable_id,rtable_id,label\na0,b0\n"),
         r"train\.csv line 2: 2 values for 3 columns"),
        ((), lambda folder: (folder / "train.csv").unlink(), r"train\.csv cannot be read"),
        (("fields=[maker]",), None, r"fields names 'maker'; the attributes are title, brand, price"),
        (("fields=[brand]",), None, r"has a record without any value"),
        (("count=7",), None, r"train has 6 pairs, but 7 are needed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_is_claimed(
    overrides: tuple[str, ...], spoil: Callable[[Path], object] | None, sentence: str, tmp_path: Path
) -> None:
    place = write_deepmatcher(tmp_path / "dm")
    if spoil is not None:
        spoil(place)
    with pytest.raises(InputError, match=sentence):
        read(place, tmp_path / "out", "split=train", *overrides)
    assert not (tmp_path / "out").exists()


def test_places_that_are_no_layout(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        detect_layout(tmp_path / "none")
    with pytest.raises(InputError, match=r"neither a CSV file nor a folder with tableA\.csv"):
        detect_layout(tmp_path)
    folder = write_wdc(tmp_path / "wdc", "x_train_small.json.gz")
    write_wdc(folder, "x_train_large.json.gz")
    with pytest.raises(InputError, match=r"has 2 files for train .*set named"):
        read(folder, tmp_path / "out", "split=train")
    assert len(read(folder, tmp_path / "out", "split=train", "named=large")) == 6
    damaged = folder / "x_valid_small.json.gz"
    damaged.write_bytes((folder / "x_train_small.json.gz").read_bytes()[:60])
    with pytest.raises(InputError, match=r"x_valid_small\.json\.gz cannot be read as JSON lines"):
        read(folder, tmp_path / "other", "split=valid")
