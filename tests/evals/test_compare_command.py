"""`sightline compare` on two scored files of answers: the numbers by hand, Holm over the table, images needed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sightline.cli import app
from tests.evals.benches.pope_lists import questions, write_answers, write_lists


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One model says yes to everything, the other is right but for the first picture of thirty."""
    folder = tmp_path_factory.mktemp("sides")
    lists = write_lists(folder / "lists", pictures=30)
    said = {
        "before": ["Yes" for _ in questions(lists)],
        "after": ["Yes" if n < 6 or q["label"] == "yes" else "No" for n, q in enumerate(questions(lists))],
    }
    for name, texts in said.items():
        rows = [
            {"question_id": q["question_id"], "answer": text} for q, text in zip(questions(lists), texts, strict=True)
        ]
        answers = write_answers(folder / f"{name}.jsonl", rows)
        arguments = ["pope", "--answers", answers, "--data", lists, "--split", "random", "--out", folder / name]
        done = CliRunner().invoke(app, ["score", *map(str, arguments), "--resamples", "500"])
        assert done.exit_code == 0, done.output
        assert "100.0" in done.output and "evaluation:" in done.output
    return folder / "before", folder / "after"


def test_numbers_and_tests(sides: tuple[Path, Path]) -> None:
    done = CliRunner().invoke(app, ["compare", *map(str, sides), "--json", "--resamples", "2000"])
    assert done.exit_code == 0, done.output
    metrics = json.loads(done.stdout)["benchmarks"]["pope"]["metrics"]
    accuracy = metrics["accuracy"]
    assert (accuracy["base"]["value"], accuracy["aligned"]["value"]) == (0.5, pytest.approx(1 - 3 / 180))
    assert accuracy["difference"]["value"] == pytest.approx(87 / 180)
    assert accuracy["mcnemar_p"] == pytest.approx(2 * 0.5**87)
    assert accuracy["verdict"] == "better" and accuracy["p"] < 0.001
    assert accuracy["p"] <= accuracy["p_holm"] <= 1
    assert metrics["yes_ratio"]["p_holm"] is None  # no direction, so nobody would quote it as a success
    assert metrics["recall"]["difference"]["ci95"] == [0.0, 0.0] and metrics["recall"]["p"] == 1.0
    assert 0 < accuracy["smallest_effect"] < 0.1


def test_the_table_says_how_many_images_an_effect_takes(sides: tuple[Path, Path]) -> None:
    wide = {"COLUMNS": "240"}
    done = CliRunner().invoke(app, ["compare", *map(str, sides), "--effect", "0.01", "--resamples", "500"], env=wide)
    assert done.exit_code == 0, done.output
    line = next(line for line in done.output.splitlines() if "accuracy" in line)
    assert "+48.3" in line and "<0.001" in line and "better" in line
    assert "images for 0.01" in done.output and "80 % power" in done.output


def test_a_directory_without_an_evaluation_is_named(sides: tuple[Path, Path], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compare", str(sides[0]), str(tmp_path)])
    assert done.exit_code == 2 and "no finished benchmark" in done.stderr
