"""A tracker receives the rows of the log: TensorBoard's files are read back; unknown trackers are rejected."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from sightline.errors import InputError
from sightline.train import trackers
from sightline.train.log import StepRecord
from sightline.train.trackers import TrackingConfig, flat_settings, open_tracker

pytest.importorskip("tensorboard")
SETTINGS = {"optim": {"lr": 1e-3, "betas": [0.9, 0.999]}, "epochs": None, "loss": {"name": "dpo"}}


def row(step: int) -> StepRecord:
    means = {"margin": 0.25 * step, "numbers": {"kl": 0.5}, "streams": {"online": {"margin": 2.0, "pairs": 1.0}}}
    fields = {"step": step, "loss": 1 / (step + 1), "grad_norm": 1.0, "lr": 1e-3, "seconds": 0.1, "pairs": 2}
    return StepRecord.model_validate({**fields, **means})


def read_back(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself shows: (step, value) of each scalar."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


def test_tensorboard_shows_the_log_and_a_resumed_run_shows_no_step_twice(tmp_path: Path) -> None:
    config = TrackingConfig(name="tensorboard", project="mine")
    with open_tracker(config, tmp_path, SETTINGS, step=0) as track:
        for step in range(5):
            track(row(step))
    with open_tracker(
        config, tmp_path, SETTINGS, step=3
    ) as track:  # killed after its fifth step, resumed at the fourth
        for step in range(3, 6):
            track(row(step))
    shown = read_back(tmp_path / "tracking" / "mine")
    assert [step for step, _ in shown["loss"]] == list(range(6))
    assert [value for _, value in shown["loss"]] == pytest.approx([1 / (step + 1) for step in range(6)])
    assert shown["margin"] == [(step, 0.25 * step) for step in range(6)]
    assert shown["kl"][0] == (0, 0.5) and shown["online/margin"][5] == (5, 2.0)
    assert {"grad_norm", "lr", "seconds", "pairs"} < set(shown) and "accuracy" not in shown


def test_without_a_tracker_nothing_is_written(tmp_path: Path) -> None:
    with open_tracker(None, tmp_path, SETTINGS, step=0) as track:
        track(row(0))
    assert list(tmp_path.iterdir()) == []


def test_settings_are_flat_and_of_types_that_trackers_take() -> None:
    flat = {"optim.lr": 1e-3, "optim.betas": "[0.9, 0.999]", "epochs": "None", "loss.name": "dpo"}
    assert flat_settings(SETTINGS) == flat


def test_a_tracker_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match=r"is not a tracker; choose one of .*tensorboard.*wandb"):
        TrackingConfig(name="tensorbord")
    monkeypatch.setattr(trackers, "get_available_trackers", list)

    def use() -> None:
        with open_tracker(TrackingConfig(name="tensorboard"), tmp_path, SETTINGS, step=0):
            raise AssertionError("it was opened")

    with pytest.raises(InputError, match=r"track\.name=tensorboard needs a package .* pip install tensorboard"):
        use()
