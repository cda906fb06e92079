"""`sightline report` as people call it."""

import json
from pathlib import Path

from typer.testing import CliRunner

from sightline.cli import app
from tests.study.directories import evaluation


def test_the_command_prints_the_table_and_writes_the_files(tmp_path: Path) -> None:
    base = evaluation(tmp_path / "base", tmp_path / "pictures", {"shapes": 0.9}, count=20)
    after = evaluation(tmp_path / "after", tmp_path / "pictures", {"shapes": 0.1}, count=20, seed=1)
    arguments = ["report", "--base", base, "--aligned", after, "--out", tmp_path / "report"]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "report.md", "results.json"]
    headline = json.loads((tmp_path / "report" / "results.json").read_text(encoding="utf-8"))["headline"]
    assert headline.endswith("better.")
    assert " ".join(headline.split()) in " ".join(done.output.split())


def test_a_missing_directory_is_one_sentence(tmp_path: Path) -> None:
    arguments = ["report", "--base", tmp_path / "no", "--aligned", tmp_path / "no", "--out", tmp_path / "report"]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "is not a directory" in done.stderr
