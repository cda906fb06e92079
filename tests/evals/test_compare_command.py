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
    texts_by_run = {
        "before": ["Yes" for _ in questions(lists)],
        "after": ["Yes" if n < 6 or q["label"] == "yes" else "No" for n, q in enumerate(questions(lists))],
    }
    for name, texts in texts_by_run.items():
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


def test_with_one_seed_the_table_says_that_seeds_are_unknown(sides: tuple[Path, Path]) -> None:
    done = CliRunner().invoke(app, ["compare", *map(str, sides), "--resamples", "500"], env={"COLUMNS": "240"})
    assert "variance between training seeds is unknown with one seed" in done.output and "seeds for" not in done.output


def test_with_several_seeds_the_table_says_what_seeds_could_show(sides: tuple[Path, Path], tmp_path: Path) -> None:
    """Three seeds that are right but for the first one, two and three pictures of thirty."""
    lists = write_lists(tmp_path / "lists", pictures=30)
    for seed in (1, 2, 3):
        texts = ["Yes" if n < 6 * seed or q["label"] == "yes" else "No" for n, q in enumerate(questions(lists))]
        rows = [{"question_id": q["question_id"], "answer": t} for q, t in zip(questions(lists), texts, strict=True)]
        answers = write_answers(tmp_path / f"{seed}.jsonl", rows)
        arguments = ["pope", "--answers", answers, "--data", lists, "--split", "random", "--out", tmp_path / str(seed)]
        assert CliRunner().invoke(app, ["score", *map(str, arguments), "--resamples", "200"]).exit_code == 0
    runs = [str(sides[0]), *(str(tmp_path / str(seed)) for seed in (1, 2, 3))]
    done = CliRunner().invoke(app, ["compare", *runs, "--json", "--resamples", "200"])
    accuracy = json.loads(done.stdout)["benchmarks"]["pope"]["metrics"]["accuracy"]
    shares = [(90 - 3 * seed) / 180 for seed in (1, 2, 3)]
    assert accuracy["by_seed"] == pytest.approx(shares)
    # Of seeds alone: their standard deviation 3 / 180 over sqrt 3, by Student's 4.303 of two degrees.
    low, high = accuracy["difference"]["ci95"]
    assert (high - low) / 2 >= 4.302 * 3 / 180 / 3**0.5
    assert accuracy["spread"]["seeds"] == 3 and accuracy["spread"]["between_seeds"] == pytest.approx((3 / 180) ** 2 / 3)
    assert accuracy["smallest_effect"] > 2.8 * accuracy["difference"]["stderr"]
    shown = CliRunner().invoke(app, ["compare", *runs, "--effect", "0.1", "--resamples", "200"], env={"COLUMNS": "260"})
    assert "seeds for 0.1" in shown.output and "this many images and 3 seeds detect" in shown.output
    assert "unknown with one seed" not in shown.output


def test_a_directory_without_an_evaluation_is_named(sides: tuple[Path, Path], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compare", str(sides[0]), str(tmp_path)])
    assert done.exit_code == 2 and "no finished benchmark" in done.stderr
