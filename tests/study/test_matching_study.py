"""A study of entity matching from end to end on a tiny random chat model: read, explain, tune, ask by four prompts."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sightline.cli import app
from sightline.data.samples import read_samples
from sightline.evals.directory import read_result
from sightline.recipes.matching.entities.pairs import read_match
from sightline.records import read_manifest
from tests.data.entities.rows import write_one_file
from tests.models.families.text import save_llama

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's directory; a random model of some steps proves the way and no quality."""
    folder = tmp_path_factory.mktemp("matching")
    save_llama(folder / "model")
    table = str(write_one_file(folder / "lamps.csv", copies=3))
    reading = {"step": "read", "path": table}
    config = {
        "seeds": [0],
        "model": str(folder / "model"),
        "samples": {
            "train": {"match": {**reading, "set": {"split": "train", "noun": "lamp", "count": 9}}},
            "test": {"match": {**reading, "set": {"split": "test", "noun": "lamp", "rule_from": "${samples.train}"}}},
            "explained": {
                "match": {"step": "explain", "of": "train", "set": {"format": "structured", "annotator": None}}
            },
        },
        "pairs": {},
        "train": {
            "set": {"loss": {"name": "sft"}, "optim": {"lr": 0.01}, "lora": {"rank": 8}, "batch_size": 9, "epochs": 8}
        },
        "arms": {"labels": {"samples": "train"}, "structured": {"samples": "explained"}},
        "evaluate": {"benchmarks": ["matching"], "samples": "test", "max_new_tokens": 4},
        "claims": [
            {
                "says": "Tuning raises F1.",
                "there": "nowhere",
                "arm": "labels",
                "against": "base",
                "benchmark": "matching",
                "metric": "f1",
                "expect": "higher",
            }
        ],
    }
    file = folder / "match.yaml"
    file.write_text(yaml.safe_dump(config))
    result = CliRunner().invoke(app, ["study", str(file), "--out", str(folder / "out")])
    assert result.exit_code == 0, result.output
    return folder / "out"


def of(done: Path, kind: str, name: str) -> Path:
    (found,) = done.glob(f"{kind}/{name}*")
    return found


def test_training_moves_the_answers_and_the_figures_are_those_of_the_test_pairs(done: Path) -> None:
    base, tuned = (read_result(of(done, "eval", name), "matching") for name in ("base", "labels"))
    assert len(tuned.samples) == 4 * sum(1 for _ in read_samples(of(done, "samples", "test")))
    assert [answer.text for answer in base.answers] != [answer.text for answer in tuned.answers]
    for found in (base, tuned):
        unparsed = sum(read_match(answer.text) is None for answer in found.answers) / len(found.answers)
        assert found.estimates["unparsed"].value == pytest.approx(unparsed)


def test_explanations_are_trained_on_behind_the_label(done: Path) -> None:
    explained = list(read_samples(of(done, "samples", "explained")))
    assert all("\nattribute=title|||importance=" in (sample.reference or "") for sample in explained)
    trained = read_manifest(of(done, "train", "structured"))
    assert trained.counts["pairs"] == len(explained) == 9 and not trained.dropped
    assert read_result(of(done, "eval", "structured"), "matching").estimates["f1"].n == 4 * 3


def test_the_report_has_the_arms_without_pictures(done: Path) -> None:
    page = (done / "report.md").read_text()
    assert "F1 of yes to every pair (no model)" in page and "learned on 9 rows (no model)" in page
    assert "p (Holm)" in page
    assert "labels" in page and "structured" in page and "F1, mean of the prompts" in page
