"""A study of entity matching from end to end on a tiny random chat model: read, explain, tune, ask by four prompts."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sightline.cli import app
from sightline.data.samples import read_samples
from sightline.evals.directory import read_result
from sightline.records import read_manifest
from tests.data.entities.rows import write_one_file
from tests.models.families.text import save_llama


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's directory; its rate is so high that the model learns to begin like its references."""
    folder = tmp_path_factory.mktemp("matching")
    save_llama(folder / "model")
    table = str(write_one_file(folder / "lamps.csv", copies=3))
    reading = {"step": "read", "path": table}
    told = {
        "seeds": [0],
        "model": str(folder / "model"),
        "samples": {
            "train": {"match": {**reading, "set": {"split": "train", "noun": "lamp", "count": 9}}},
            "test": {"match": {**reading, "set": {"split": "test", "noun": "lamp"}}},
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
    }
    file = folder / "match.yaml"
    file.write_text(yaml.safe_dump(told))
    result = CliRunner().invoke(app, ["study", str(file), "--out", str(folder / "out")])
    assert result.exit_code == 0, result.output
    return folder / "out"


def of(done: Path, kind: str, name: str) -> Path:
    (found,) = done.glob(f"{kind}/{name}*")
    return found


def test_labels_are_learned_and_the_figures_are_those_of_the_test_pairs(done: Path) -> None:
    base, tuned = (read_result(of(done, "eval", name), "matching") for name in ("base", "labels"))
    assert len(tuned.samples) == 4 * sum(1 for _ in read_samples(of(done, "samples", "test")))
    unparsed = [result.estimates["unparsed"].value for result in (base, tuned)]
    assert unparsed[1] == 0.0 and unparsed[0] is not None and unparsed[0] > 0.5, "it learns to say yes or no"
    assert {answer.text for answer in tuned.answers} <= {"Yes", "No"}


def test_explanations_are_trained_on_behind_the_label(done: Path) -> None:
    explained = list(read_samples(of(done, "samples", "explained")))
    assert all("\nattribute=title|||importance=" in (sample.reference or "") for sample in explained)
    trained = read_manifest(of(done, "train", "structured"))
    assert trained.counts["pairs"] == len(explained) == 9 and not trained.dropped
    answers = read_result(of(done, "eval", "structured"), "matching").answers
    assert all(answer.text.startswith(("Yes", "No")) for answer in answers)


def test_the_report_has_the_arms_without_pictures(done: Path) -> None:
    page = (done / "report.md").read_text()
    assert "labels" in page and "structured" in page and "F1, mean of the prompts" in page
