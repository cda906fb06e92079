"""The log of a training run: one row a step, appended to `log.jsonl`.

Plain records for the report and for people, free of torch. `loop` makes them, `run` writes them.
"""

from collections.abc import Iterator
from pathlib import Path

from sightline.records.rows import Row
from sightline.records.store import read_rows, write_rows

LOG_NAME = "log.jsonl"


class StepRecord(Row):
    """One optimizer step, measured before the update; every mean is over the step's pairs.

    `step` counts from 0. Rewards are the loss's implicit rewards, `margin` their difference, `accuracy` the share of
    pairs whose chosen reward is the greater. Log-probs are nats summed over the answer, the reference's None where the
    loss needs no reference; `*_tokens` are answer lengths, end of turn included. `grad_norm` is before clipping, `lr`
    the first parameter group's, `pairs` the number of pairs.
    """

    step: int
    loss: float
    chosen_reward: float
    rejected_reward: float
    margin: float
    accuracy: float
    chosen_logps: float
    rejected_logps: float
    chosen_ref_logps: float | None
    rejected_ref_logps: float | None
    chosen_tokens: float
    rejected_tokens: float
    grad_norm: float
    lr: float
    seconds: float
    pairs: int


def read_log(path: Path) -> Iterator[StepRecord]:
    """The rows of a log in order, none if there is no file; a last line torn by a kill is left out."""
    if path.exists():
        yield from read_rows(path, StepRecord, allow_torn_tail=True)


def cut_log(path: Path, steps: int) -> None:
    """Keep the first `steps` steps, those that a checkpoint holds, so that a resumed run logs no step twice."""
    if path.exists():
        write_rows(path, [row for row in read_log(path) if row.step < steps])
