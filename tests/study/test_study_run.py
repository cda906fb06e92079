"""A study from end to end on a tiny random model: run, stopped, gone on with, compared, and taken away again."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from sightline.cli import app
from sightline.study.ledger import LEDGER, Ledger, LedgerEntry, has_ledger
from tests.models.tiny import save_tiny_llava
from tests.study.test_report import Page
from tests.study.test_study_plan import STUDY


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = save_tiny_llava(tmp_path_factory.mktemp("model"))
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 1024  # the lab's answers are long for so small a vocabulary
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    """A study of two arms, one of which can never be trained, run once."""
    folder = tmp_path_factory.mktemp("study")
    arms = {
        "dpo": {"pairs": "corrupted"},
        "huge": {"pairs": "corrupted", "set": {"optim": {"lr": 1e-4, "clip_norm": -1}}},
    }
    config: dict[str, Any] = {**STUDY, "model": str(model), "arms": arms, "seeds": [0]}
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(config))
    _stopped_twice(file, folder / "out")
    return file, folder / "out", call("study", file, "--out", folder / "out")


def _stopped_twice(file: Path, out: Path) -> None:
    """Begin the study in a process of its own, press Ctrl-C in its first piece; begin it again, and kill it."""
    words = [sys.executable, "-m", "sightline", "study", str(file), "--out", str(out)]
    for sign, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 300
        while "running" not in _states(out) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if sign == signal.SIGKILL:
            second = call("study", file, "--out", out)
            assert second.exit_code == 2 and "another process runs a study in" in second.output
        process.send_signal(sign)
        _, message = process.communicate(timeout=60)
        assert process.returncode == code, message
        if sign == signal.SIGINT:
            assert (
                message.splitlines()[-1] == "interrupted; run the same command again to resume"
                and "Trace" not in message
            )
            assert _states(out) == ["stopped"]


def _states(out: Path) -> list[str]:
    return [entry.state for entry in Ledger(out).entries().values()] if has_ledger(out) else []


def test_what_can_be_done_is_done_and_the_rest_is_told(finished: tuple[Path, Path, Result]) -> None:
    _, out, result = finished
    assert result.exit_code == 1, result.output
    assert "clip_norm" in result.output and "Traceback" not in result.output
    states = {(entry.kind, entry.label): entry.state for entry in Ledger(out).entries().values()}
    assert states == {
        ("eval", "base"): "done",
        ("samples", "scenes"): "done",
        ("pairs", "corrupted 0"): "done",
        ("train", "dpo 0"): "done",
        ("eval", "dpo 0"): "done",
        ("train", "huge 0"): "failed",
    }
    results = json.loads((out / "results.json").read_text())
    assert results["missing"] == ["huge"]
    assert {found["arm"] for found in results["findings"]} == {"base", "dpo"}
    accuracy = next(f for f in results["findings"] if f["arm"] == "dpo" and f["metric"] == "accuracy")
    assert accuracy["difference"]["n"] == accuracy["value"]["n"] == len(accuracy["by_seed"]) * accuracy["value"]["n"]
    cost = results["costs"][0]
    assert cost["steps"] == 2 and cost["rows"] == 8 and cost["train_seconds"] > 0
    rows = (out / "results.csv").read_text().splitlines()
    assert sum(row.startswith("arm,") for row in rows) == len(results["findings"])
    assert "| dpo |" in (out / "report.md").read_text()
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert page.open == [] and f"report: {out / 'report.html'}" in result.output.replace("\n", "")
    assert "train huge 0: failed" in page.text and "clip_norm" in page.text
    assert "No two arms differ in one thing alone" in page.text
    assert "1 arm with one seed each, against the untrained model. Measured on lab-vqa" in page.text


def test_a_second_run_does_only_what_failed(finished: tuple[Path, Path, Result]) -> None:
    file, out, _ = finished
    before = {key: entry.seconds for key, entry in Ledger(out).entries().items() if entry.state == "done"}
    manifests = {path: path.stat().st_mtime_ns for path in out.rglob("manifest.json")}
    planned = call("study", file, "--out", out, "--dry-run")
    assert "train: 2, of which 1 to do" in planned.output and "samples: 1, of which 0 to do" in planned.output
    mended = call("study", file, "--out", out, "--set", "arms.huge={pairs: corrupted, set: {optim: {lr: 1.0e-3}}}")
    assert mended.exit_code == 0, mended.output
    assert all(path.stat().st_mtime_ns == time for path, time in manifests.items())
    after = Ledger(out).entries()
    assert all(after[key].state == "done" for key in before)
    results = json.loads((out / "results.json").read_text())
    effects = {(e["ingredient"], e["before"], e["after"]) for e in results["effects"]}
    assert effects == {("optim.lr", "0.0001", "0.001")}


def test_a_study_that_calls_a_piece_otherwise_takes_what_is_done(
    finished: tuple[Path, Path, Result], tmp_path: Path
) -> None:
    """Same work under another arm's name and another name of pairs: nothing is done; its report finds all of it."""
    file, out = finished[0], tmp_path / "out"
    shutil.copytree(finished[1], out)
    config = yaml.safe_load(file.read_text())
    config["pairs"] = {"made-up": config["pairs"].pop("corrupted")}
    config["arms"] = {"preferred": {"pairs": "made-up"}}
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(config))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("manifest.json")}
    done = call("study", other, "--out", out)
    assert done.exit_code == 0, done.output
    assert {path: path.stat().st_mtime_ns for path in out.rglob("manifest.json")} == before
    page = next(out.rglob("other/report.html")).read_text(encoding="utf-8")
    assert "preferred" in page and "made-up" in page


def test_the_report_is_written_again_from_the_ledger(finished: tuple[Path, Path, Result]) -> None:
    """The same bytes, by its own command, and also where the study file is not at hand."""
    _, out, _ = finished
    files = ("report.html", "report.md", "results.csv", "results.json")
    before = {name: (out / name).read_bytes() for name in files}
    for name in files:
        (out / name).unlink()
    again = call("study", "report", "--out", out)
    assert again.exit_code == 0, again.output
    assert {name: (out / name).read_bytes() for name in files} == before
    wrong = call("study", "report", "--out", out, "--study", "other")
    assert wrong.exit_code == 2 and "no study 'other'" in wrong.output
    assert {run[0] for run in Ledger(out).runs("tiny")} == {"dpo", "huge"}


def test_looking_at_it_afterwards(finished: tuple[Path, Path, Result]) -> None:
    _, out, _ = finished
    listed = call("study", "ls", "--out", out)
    assert listed.exit_code == 0 and "corrupted 0" in listed.output
    key = next(key for key, entry in Ledger(out).entries().items() if entry.kind == "train" and entry.state == "done")
    shown = call("study", "show", key[:12], "--out", out)
    assert shown.exit_code == 0 and "sightline train --model" in shown.output and "steps: 2" in shown.output
    compared = call("study", "compare", "--out", out, "--baseline", "dpo")
    assert compared.exit_code == 0 and "baseline" in compared.output
    wrong = call("study", "compare", "--out", out, "--baseline", "kto")
    assert wrong.exit_code == 2 and "no arm 'kto'" in wrong.output
    missing = call("study", "show", "zzz", "--out", out)
    assert missing.exit_code == 2 and "0 jobs" in missing.output


def test_the_command_of_a_piece_can_be_given_by_hand(finished: tuple[Path, Path, Result]) -> None:
    """It opens the finished directory as its own: same key, nothing to do."""
    import shlex

    _, out, _ = finished
    for entry in Ledger(out).entries().values():
        if entry.state == "done":
            words = shlex.split(entry.command)
            stamp = (out / entry.folder / "manifest.json").stat().st_mtime_ns
            done = call(*words[1:])
            assert done.exit_code == 0, (entry.command, done.output)
            assert (out / entry.folder / "manifest.json").stat().st_mtime_ns == stamp


def test_taking_work_away_takes_what_stands_on_it(finished: tuple[Path, Path, Result]) -> None:
    _, out, _ = finished
    pairs = next(key for key, entry in Ledger(out).entries().items() if entry.kind == "pairs")
    gone = call("study", "rm", pairs[:12], "--out", out)
    assert gone.exit_code == 0, gone.output
    left = {(entry.kind, entry.label) for entry in Ledger(out).entries().values() if entry.state == "done"}
    assert left == {("eval", "base"), ("samples", "scenes")}
    assert not any((out / "train").glob("*/adapter"))
    nothing = call("study", "rm", "--out", out)
    assert nothing.exit_code == 2 and "--unused" in nothing.output


def test_the_ledger_adds_up_what_was_begun_twice(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, write=True)
    entry = LedgerEntry("k" * 64, "train", "dpo 0", "train/dpo", "sightline train", 0, "running", None)
    for _ in range(2):
        ledger.begin(entry)
        assert ledger.entries()[entry.key].state == "running"
        ledger.end(entry.key, "done", seconds=1.5, counts={"steps": 2}, numbers={"last_loss": 0.5})
    found = Ledger(tmp_path).entries()[entry.key]
    assert (found.seconds, found.counts, found.numbers) == (3.0, {"steps": 2}, {"last_loss": 0.5})


def test_a_directory_without_a_ledger_or_with_a_broken_one_is_refused(tmp_path: Path) -> None:
    none = call("study", "ls", "--out", tmp_path)
    assert none.exit_code == 2 and "holds no study" in none.output
    (tmp_path / LEDGER).touch()  # as it is while a study begins
    empty = call("study", "ls", "--out", tmp_path)
    assert empty.exit_code == 2 and "holds no study" in empty.output
    (tmp_path / LEDGER).write_bytes(b"no data base, " * 100)
    broken = call("study", "ls", "--out", tmp_path)
    assert broken.exit_code == 2 and "cannot be used" in broken.output
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(tmp_path / LEDGER).execute("SELECT 1 FROM pieces")
