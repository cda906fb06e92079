"""Experiment trackers that show the training log, through Accelerate.

The log itself is `log`; `monitors` warns about it and stays free of Accelerate and torch, for the report.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from pydantic import Field, field_validator

from sightline.config import Config
from sightline.errors import InputError
from sightline.train.log import StepRecord

TRACKERS = tuple(sorted(str(name) for name in LOGGER_TYPE_TO_CLASS))
FOLDER = "tracking"  # folder of trackers that write files, in the run's directory

Track = Callable[[StepRecord], None]


class TrackingConfig(Config):
    """The tracker of a run; its own settings and keys are in the environment."""

    name: str = Field(description=f"one of {', '.join(TRACKERS)}")
    project: str = Field(default="sightline", min_length=1, description="project that the tracker files the run under")

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in TRACKERS:
            raise ValueError(f"is not a tracker; choose one of {', '.join(TRACKERS)}")
        return value


@contextlib.contextmanager
def open_tracker(config: TrackingConfig | None, run: Path, settings: dict[str, Any], step: int) -> Iterator[Track]:
    """A function that tracks a row, or does nothing without a tracker; `step` is the first step to come.

    Raises:
        InputError: the tracker's package is not installed.
    """
    if config is None:
        yield lambda _: None
        return
    tracker = _open(config, run, step)
    tracker.store_init_configuration(flat_settings(settings))
    try:
        yield lambda row: tracker.log(flat_numbers(row), step=row.step)
    finally:
        tracker.finish()


def flat_numbers(row: StepRecord) -> dict[str, float]:
    """A row's numbers by name; those of a stream as `stream/name`."""
    plain = row.model_dump(exclude={"step", "numbers", "streams"}, exclude_none=True)
    streams = {f"{stream}/{name}": value for stream, means in row.streams.items() for name, value in means.items()}
    return {**plain, **row.numbers, **streams}


def flat_settings(settings: dict[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """A config as trackers accept it: `a.b` for a key within a section, strings for values that are not numbers."""
    flat: dict[str, str | int | float | bool] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str | int | float | bool) else str(value)
    return flat


def _open(config: TrackingConfig, run: Path, step: int) -> GeneralTracker:
    kind = next(cls for name, cls in LOGGER_TYPE_TO_CLASS.items() if str(name) == config.name)
    if config.name not in {str(name) for name in get_available_trackers()}:
        raise InputError(f"track.name={config.name} needs a package that is not installed; pip install {config.name}")
    options: dict[str, Any] = {}
    if getattr(kind, "requires_logging_directory", False):
        folder = run / FOLDER
        folder.mkdir(exist_ok=True)
        options["logging_dir"] = folder
    if config.name == "tensorboard":
        options["purge_step"] = step  # steps that a killed run logged after its checkpoint are repeated
    tracker: GeneralTracker = kind(config.project, **options)
    tracker.start()
    return tracker
