"""Training log: one row per step, appended to `log.jsonl`, and the sums that a row is computed from.

Plain records without torch. `loop` creates them, `run` writes them, and the report reads them.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from sightline.records.rows import Row
from sightline.records.store import read_rows, write_rows

LOG_NAME = "log.jsonl"


class StepRecord(Row):
    """One optimizer step, measured before the update; every mean is over the step's items, usually pairs.

    `step` counts from 0. Rewards are the loss's implicit rewards, `margin` is their difference, `accuracy` the share of
    pairs whose chosen reward is greater. Log-probs are nats summed over the answer; the reference's are None if the
    loss needs no reference. `*_tokens` are answer lengths including the end of turn. All of these are None if the items
    are not pairs. `grad_norm` is before clipping, `lr` is that of the first parameter group, `pairs` the number of
    items. `numbers` holds further means of the task and the source; `streams` holds, for each stream of a mixture, the
    same means over its items alone and their number as `pairs`.
    """

    step: int
    loss: float
    chosen_reward: float | None = None
    rejected_reward: float | None = None
    margin: float | None = None
    accuracy: float | None = None
    chosen_logps: float | None = None
    rejected_logps: float | None = None
    chosen_ref_logps: float | None = None
    rejected_ref_logps: float | None = None
    chosen_tokens: float | None = None
    rejected_tokens: float | None = None
    grad_norm: float
    lr: float
    seconds: float
    pairs: int
    numbers: dict[str, float] = Field(default_factory=dict)
    streams: dict[str, dict[str, float]] = Field(default_factory=dict)


#: Fields that are means over items; any other column goes into `numbers`.
MEANS = frozenset(StepRecord.model_fields) - {"step", "grad_norm", "lr", "seconds", "pairs", "numbers", "streams"}


class StepTally:
    """Sums over the items of one step, from which its record is computed; several tallies can be merged."""

    def __init__(self) -> None:
        self.items: dict[str, int] = defaultdict(int)  # stream -> count
        self.sums: dict[tuple[str, str], tuple[float, int]] = {}  # (stream, column) -> total, count

    def add(self, columns: Mapping[str, Sequence[float]], streams: Sequence[str]) -> None:
        """Add items: one number per item in every column (NaN if it has none), and the stream of each item."""
        for stream in streams:
            self.items[stream] += 1
        for name, column in columns.items():
            for stream, value in zip(streams, column, strict=True):
                if not math.isnan(value):
                    self._add((stream, name), value, 1)

    def merge(self, other: "StepTally") -> None:
        """Add the counts of another tally."""
        for stream, count in other.items.items():
            self.items[stream] += count
        for key, (total, count) in other.sums.items():
            self._add(key, total, count)

    def mean(self, name: str) -> float:
        """The mean of a column over all items; NaN if nothing was counted."""
        found = [sums for (_, column), sums in self.sums.items() if column == name]
        count = sum(number for _, number in found)
        return sum(total for total, _ in found) / count if count else math.nan

    def record(
        self, *, step: int, grad_norm: float, lr: float, seconds: float, numbers: Mapping[str, float] | None = None
    ) -> StepRecord:
        """The step's record: the means, the values of the step itself, and the source's `numbers`."""
        together = StepTally()
        for (_, name), (total, count) in self.sums.items():
            together._add(("", name), total, count)
        means = together._means("")
        further = {name: value for name, value in means.items() if name not in MEANS}
        streams = {
            stream: {**self._means(stream), "pairs": float(count)}
            for stream, count in sorted(self.items.items())
            if stream
        }
        known = {name: value for name, value in means.items() if name in MEANS}
        row = {**known, "step": step, "grad_norm": grad_norm, "lr": lr, "seconds": seconds, "streams": streams}
        pairs = sum(self.items.values())
        return StepRecord.model_validate({**row, "pairs": pairs, "numbers": {**further, **(numbers or {})}})

    def _add(self, key: tuple[str, str], value: float, number: int) -> None:
        total, count = self.sums.get(key, (0.0, 0))
        self.sums[key] = total + value, count + number

    def _means(self, stream: str) -> dict[str, float]:
        return {name: total / count for (where, name), (total, count) in self.sums.items() if where == stream}


def merge_tallies(tallies: Sequence[StepTally]) -> StepTally:
    """The tallies of several processes as one, in the given order."""
    together = StepTally()
    for tally in tallies:
        together.merge(tally)
    return together


def read_log(path: Path) -> Iterator[StepRecord]:
    """The rows of a log in order, none if the file is missing; a last line torn by a kill is skipped."""
    if path.exists():
        yield from read_rows(path, StepRecord, allow_torn_tail=True)


def cut_log(path: Path, steps: int) -> None:
    """Keep the first `steps` steps, those that a checkpoint holds, so that a resumed run logs no step twice."""
    if path.exists():
        write_rows(path, [row for row in read_log(path) if row.step < steps])
