"""Observers of a running training: the progress line, a tracker, and the monitors with their warnings.

The line shows loss, margin, accuracy and speed, short enough for 80 columns with the bar; bar, count and remaining time
are those of every command (`data.terminal`). Observers change neither the run nor its files.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.progress import Progress, TaskID

from sightline.train.config import TrainConfig
from sightline.train.log import LOG_NAME, StepRecord, read_log
from sightline.train.monitors import TrainMonitor
from sightline.train.trackers import open_tracker


@contextlib.contextmanager
def observe_run(
    run: Path, config: TrainConfig, bars: Progress, *, done: int, total: int
) -> Iterator[Callable[[StepRecord], None]]:
    """The function to call after each step of the run in directory `run`; `done` steps are in its log already.

    Raises:
        InputError: as `trackers.open_tracker`.
    """
    watch = TrainMonitor(config.monitors, tuple(read_log(run / LOG_NAME)))
    task = bars.add_task("training", total=total, completed=done, note="")
    with open_tracker(config.track, run, config.model_dump(mode="json"), done) as track:

        def look(record: StepRecord) -> None:
            track(record)
            for line in watch.observe(record):
                bars.console.print(f"warning: {line}", markup=False, highlight=False, soft_wrap=True)
            show(bars, task, record)

        yield look


def show(bars: Progress, task: TaskID, record: StepRecord) -> None:
    """Move the bar to the step of `record`."""
    bars.update(task, completed=record.step + 1, note=progress_note(record))


def progress_note(record: StepRecord) -> str:
    """The text behind the bar; tokens are those of answers, over all processes."""
    parts = [f"loss {record.loss:.3f}" if abs(record.loss) < 10 else f"loss {record.loss:.4g}"]
    if record.margin is not None:
        parts.append(f"margin {record.margin:+.2f}")
    if record.accuracy is not None:
        parts.append(f"acc {record.accuracy:.0%}")
    tokens = record.pairs * ((record.chosen_tokens or 0.0) + (record.rejected_tokens or 0.0))
    if tokens and record.seconds:
        parts.append(f"{_short(tokens / record.seconds)} tok/s")
    return " ".join(parts)


def _short(value: float) -> str:
    """1234 -> 1.2k: at most five characters."""
    return f"{value:.0f}" if value < 1000 else f"{value / 1000:.1f}k" if value < 1e5 else f"{value / 1000:.0f}k"
