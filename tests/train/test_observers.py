"""Observers: the progress line, which fits into 80 columns, and the warnings that are kept."""

import io
from pathlib import Path

import pytest

from sightline.config import load_config
from sightline.data.terminal import Screen, open_bars
from sightline.records.manifest import read_manifest
from sightline.records.rows import Pair
from sightline.train.config import TrainConfig
from sightline.train.log import StepRecord, read_log
from sightline.train.monitors import TrainMonitor
from sightline.train.observers import progress_note, show
from sightline.train.run import train
from tests.train.test_run import write_pairs
from tests.train.test_trackers import read_back

ROW = {"step": 12344, "loss": 0.6931, "grad_norm": 1, "lr": 1, "seconds": 2.0, "pairs": 64}
MEANS = {"margin": 0.021, "accuracy": 0.546, "chosen_tokens": 100.0, "rejected_tokens": 92.0}


def test_the_line_says_loss_margin_accuracy_and_speed() -> None:
    note = progress_note(StepRecord.model_validate({**ROW, **MEANS}))
    assert note == "loss 0.693 margin +0.02 acc 55% 6.1k tok/s", "64 pairs * 192 tokens / 2 s"
    assert progress_note(StepRecord.model_validate(ROW)) == "loss 0.693"
    slow = {**ROW, **MEANS, "loss": 123.456, "margin": -12.3, "seconds": 20.0}
    assert progress_note(StepRecord.model_validate(slow)) == "loss 123.5 margin -12.30 acc 55% 614 tok/s"


def test_at_80_columns_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        "sightline.data.terminal.Screen",
        lambda **_: Screen(file=screen, width=80, force_terminal=True, color_system=None),
    )
    with open_bars() as bars:
        bars.add_task("reading", total=20000, completed=20000, note="")
        task = bars.add_task("training", total=20000, completed=12000, note="")
        show(bars, task, StepRecord.model_validate({**ROW, **MEANS, "margin": 12.34, "accuracy": 1.0, "seconds": 1.0}))
    line = next(line for line in screen.getvalue().splitlines()[::-1] if "training" in line)
    assert "12345/20000" in line and "…" not in line and "━" in line
    assert line.rstrip().endswith("loss 0.693 margin +12.34 acc 100% 12.3k tok/s")


def test_a_run_warns_once_keeps_the_warning_and_is_tracked(
    model_dir: Path, pairs: list[Pair], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a pair and its swap at most one is ever the right way round, so that no window reaches 99 %."""
    pytest.importorskip("tensorboard")
    settings = ("loss.name=dpo", "loss.beta=0.1", "optim.lr=1e-4", "max_steps=6", "batch_size=12")
    options = ("monitors.window=2", "track.name=tensorboard", "monitors.length=null", "monitors.accuracy=0.99")
    config = load_config(TrainConfig, None, (*settings, *options))
    swaps = [
        pair.model_copy(update={"id": f"{pair.id}-swapped", "chosen": pair.rejected, "rejected": pair.chosen})
        for pair in pairs
    ]
    out = train(model_dir, write_pairs(tmp_path / "pairs", [*pairs, *swaps]), tmp_path / "out", config, 0)
    warned = read_manifest(out).warnings
    rows = list(read_log(out / "log.jsonl"))
    assert warned == TrainMonitor(config.monitors, rows).lines
    assert any("of the pairs have the higher reward on the chosen answer" in line for line in warned)
    printed = [line for line in capfd.readouterr().err.splitlines() if "warning: " in line]
    assert [line.split("warning: ")[1].rstrip() for line in printed] == list(warned), "each once, in one line"
    shown = read_back(out / "tracking" / "sightline")
    assert [step for step, _ in shown["loss"]] == [row.step for row in rows]
    assert [value for _, value in shown["loss"]] == pytest.approx([row.loss for row in rows], rel=1e-6)
