"""The cleaned copy, its list of removed rows, and the stage around both, from JSONL and from Parquet."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
from typer.testing import CliRunner, Result

from sightline.check.findings import CheckConfig, RemovedRow, Report
from sightline.cli import app
from sightline.data.preference_dataset import read_pairs, write_preference_dataset
from sightline.records import read_json, read_manifest, read_rows
from tests.check.datasets import checked, picture, row, write


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """Six rows, of which the first, fourth and sixth are good; the fourth's picture is CMYK."""
    rows: list[dict[str, Any] | str] = [row(n) for n in range(6)]
    rows[1] = "no row"
    rows[2] = row(2, rejected="")
    rows[3] = row(3, images=["images/3.jpg"])
    rows[4] = {**row(0), "id": "again"}
    dataset = write(tmp_path / "pairs", rows)
    picture(3).convert("CMYK").save(dataset / "images/3.jpg")
    return dataset


def test_the_copy_holds_the_good_rows_and_the_list_the_others(spoiled: Path, tmp_path: Path) -> None:
    before = (spoiled / "pairs.jsonl").read_bytes()
    done = call("check", spoiled, "--fix", tmp_path / "clean", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    clean = tmp_path / "clean"
    assert [pair.id for pair in read_pairs(clean)] == ["pair-0", "pair-3", "pair-5"]
    removed = [(gone.row, gone.id, gone.check) for gone in read_rows(clean / "removed.jsonl", RemovedRow)]
    assert removed == [(2, "", "row"), (3, "pair-2", "empty"), (5, "again", "duplicate")]
    manifest = read_manifest(clean)
    assert manifest.complete and manifest.counts == {"rows": 6, "pairs": 3}
    assert manifest.dropped == {"row": 1, "empty": 1, "duplicate": 1}
    rows = datasets.load_dataset(str(clean), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["id"] == ["pair-0", "pair-3", "pair-5"] and rows[0]["images"][0].size == (96, 72)
    assert (spoiled / "pairs.jsonl").read_bytes() == before
    again = checked(clean, tmp_path / "again")
    assert [finding.check for finding in again.findings] == ["image-cmyk"] and again.report.removable == 0


def test_a_finished_check_is_read_and_not_made_again(spoiled: Path, tmp_path: Path) -> None:
    words = ("check", spoiled, "--out", tmp_path / "out", "--fix", tmp_path / "clean")
    first = call(*words)
    report = Report.model_validate(read_json(tmp_path / "out/check.json"))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = call(*words)
    assert (first.exit_code, second.exit_code) == (0, 0) and first.stdout == second.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == times
    assert report.removable == 3 and report.is_bad
    assert read_manifest(tmp_path / "out").config["config"] == CheckConfig().model_dump(mode="json")
    other = call(*words, "--set", "min_side=20")
    assert other.exit_code == 2 and "holds another run" in other.stderr


def test_parquet_with_images_inside(spoiled: Path, tmp_path: Path) -> None:
    """Two images of one name, as published sets have them, and one that is damaged."""
    good = write(tmp_path / "good", [row(n, images=["images/same.png"]) for n in range(4)], pictures=4)
    names = []
    for number in range(4):
        (good / "images/same.png").write_bytes((good / f"images/{number}.png").read_bytes())
        one = write(tmp_path / f"one-{number}", [row(number, images=["images/same.png"])], pictures=0)
        shutil.copy(good / "images/same.png", one / "images/same.png")
        write_preference_dataset(one)
        names.append(one / "data/train-00000-of-00001.parquet")
    parquet = tmp_path / "parquet"
    (parquet / "data").mkdir(parents=True)
    for number, name in enumerate(names):
        shutil.copy(name, parquet / f"data/part-{number}.parquet")
    found = checked(parquet, tmp_path / "out-0")
    assert found.findings == [] and found.report.rows == 4
    assert (found.report.images, found.report.distinct_images) == (4, 4)
    assert sorted(path.name for path in parquet.iterdir()) == ["data"], "nothing is written into the dataset"
    done = call("check", parquet, "--fix", tmp_path / "clean")
    assert done.exit_code == 0, done.output
    pairs = list(read_pairs(tmp_path / "clean"))
    assert len({pair.images for pair in pairs}) == 4
    for number, pair in enumerate(pairs):
        assert (tmp_path / "clean" / pair.images[0]).read_bytes() == (good / f"images/{number}.png").read_bytes()


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    dataset = write(tmp_path / "pairs", [row(0, chosen="")])
    done = call("check", dataset, "--fix", tmp_path / "clean")
    assert done.exit_code == 2 and "no row is left" in done.stderr
    assert not (tmp_path / "clean/pairs.jsonl").exists() or not (tmp_path / "clean/pairs.jsonl").read_text()


def test_strict_is_about_the_verdict(spoiled: Path, tmp_path: Path) -> None:
    assert call("check", spoiled).exit_code == 0
    assert call("check", spoiled, "--strict").exit_code == 1
    good = write(tmp_path / "good", [row(n) for n in range(3)])
    assert call("check", good, "--strict").exit_code == 0


def test_bad_input_is_one_sentence(spoiled: Path, tmp_path: Path) -> None:
    for words, sentence in (
        (("check", tmp_path / "none"), "none does not exist; check the path"),
        (("check", spoiled, "--model", tmp_path / "none"), "does not exist"),
        (("check", spoiled, "--against", "lab-vqe"), "did you mean 'lab-vqa'?"),
        (("check", spoiled, "--set", "min_sid=3"), "did you mean 'min_side'?"),
        (("check", spoiled, "--out", spoiled), "holds other files"),
        (("check", spoiled, "--fix", spoiled), "holds other files"),
        (("check", spoiled, "--set", "look=0.9"), "look 0.9 must not exceed bad 0.75"),
    ):
        done = call(*words)
        assert done.exit_code == 2 and sentence in done.stderr, done.output
        assert done.stderr.count("\n") == 1 and "Traceback" not in done.output


def test_a_mistake_claims_no_directory(spoiled: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("bad\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    for mistake in (("--against", tmp_path / "bad.jsonl"), ("--model", tmp_path / "model")):
        done = call("check", spoiled, "--out", tmp_path / "out", "--fix", tmp_path / "clean", *mistake)
        assert done.exit_code == 2, done.output
        assert not (tmp_path / "out").exists() and not (tmp_path / "clean").exists()


def test_a_benchmark_of_the_registry(tmp_path: Path) -> None:
    """Scenes that a benchmark of the lab draws, found in a dataset that has one of them."""
    from sightline.evals.benchmark import BenchmarkOptions
    from sightline.evals.registry import get_benchmark

    bench = get_benchmark("lab-vqa", BenchmarkOptions(tmp_path / "data", limit=1))
    sample = next(iter(bench.samples()))
    rows = [row(0), row(1, images=["images/leaked.png"], prompt=sample.prompt)]
    dataset = write(tmp_path / "pairs", [*rows])
    shutil.copy(bench.folder / sample.images[0], dataset / "images/leaked.png")
    words = ("check", dataset, "--against", "lab-vqa", "--data", tmp_path / "data", "--out", tmp_path / "out")
    done = call(*words)
    assert done.exit_code == 0, done.output
    lines = read_json(tmp_path / "out/check.json")["lines"]
    found = {line["check"]: line["examples"] for line in lines if line["of"] == "lab-vqa" and line["rows"]}
    assert found == {"overlap-image": ["pair-1"], "overlap-question": ["pair-1"]}
    assert json.loads((tmp_path / "out/manifest.json").read_text())["config"]["against"] == ["lab-vqa"]
