"""One number under watch: its ranks, its wealth, the share's confidence sequence, and its alarm, as plain state.

What it knows goes into JSON and back without loss, so that reading a log in parts is reading it whole.
"""

import hashlib
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from sightline.apps.monitor.betting import BETS, Ranks, Share, Wealth
from sightline.apps.monitor.measures import Measure
from sightline.records.ratings import LoggedRequest
from sightline.records.rows import Row

#: Points of a wealth's history that are kept for the page; beyond, every second one is left out.
_POINTS = 400


@dataclass
class MetricMonitor:
    """A measure's state. `baseline` and `stream` are (count, sum) of its values; `bar` the log-wealth of an alarm.

    `history` has (values seen, log-wealth); `alarm` the row at which the bar was reached, with its time.
    """

    measure: Measure
    bar: float
    seed: int
    ranks: Ranks
    baseline: tuple[int, float]
    wealth: Wealth = field(default_factory=Wealth.fresh)
    stream: tuple[int, float] = (0, 0.0)
    share: Share = field(default_factory=Share)
    history: list[tuple[int, float]] = field(default_factory=list)
    alarm: dict[str, Any] | None = None

    def take(self, row: LoggedRequest, value: float, alpha: float) -> float:
        """Take in a row's value; its p-value."""
        p = self.ranks.p_value(self.measure.grid(value), self._uniform(row.id))
        now = self.wealth.bet(p)
        count, total = self.stream
        self.stream = (count + 1, total + value)
        if self.measure.kind == "share":
            self.share.add(min(1.0, max(0.0, value)), alpha)
        if self.alarm is None and now >= self.bar:
            self.alarm = {"id": row.id, "time": row.time, "values": count + 1}
        if not self.history or count + 1 >= self.history[-1][0] + self._stride():
            self.history.append((count + 1, now))
            if len(self.history) > _POINTS:
                self.history = self.history[1::2]
        return p

    def state(self) -> dict[str, Any]:
        """All that changes, as JSON has it."""
        return {
            "ranks": sorted(self.ranks.counts.items()),
            "baseline": self.baseline,
            "wealth": {"logs": self.wealth.logs.tolist(), "count": self.wealth.count, "highest": self.wealth.highest},
            "stream": self.stream,
            "share": asdict(self.share),
            "history": self.history,
            "alarm": self.alarm,
        }

    @classmethod
    def restored(cls, measure: Measure, bar: float, seed: int, state: dict[str, Any]) -> "MetricMonitor":
        """The inverse of `state`."""
        told = state["wealth"]
        logs = np.array(told["logs"], dtype=np.float64).reshape(-1, BETS)
        return cls(
            measure,
            bar,
            seed,
            Ranks.of({int(value): int(count) for value, count in state["ranks"]}),
            (int(state["baseline"][0]), float(state["baseline"][1])),
            Wealth(logs, int(told["count"]), float(told["highest"])),
            (int(state["stream"][0]), float(state["stream"][1])),
            Share(**state["share"]),
            [(int(at), float(log)) for at, log in state["history"]],
            state["alarm"],
        )

    def _uniform(self, key: str) -> float:
        """Breaks ties: a function of the row's id alone, so that reading again gives the same."""
        digest = hashlib.sha256(f"{self.seed}/{self.measure.name}/{key}".encode()).digest()
        return int.from_bytes(digest[:8], "little") / 2**64

    def _stride(self) -> int:
        """How many values stand between two points of the history now."""
        return max(1, self.history[-1][0] // _POINTS)


class MonitorFinding(Row):
    """One number. `evidence` is the wealth now and `highest` the most it ever was, as factors; `bar` is 1 / its alpha.

    `interval` holds a share at every row at once with the same error rate. `alarm_*` say where the bar was reached.
    """

    name: str
    title: str
    kind: Literal["number", "share"]
    state: Literal["calm", "alarm", "no values"]
    baseline: float
    baseline_n: int
    now: float | None
    n: int
    interval: tuple[float, float] | None
    evidence: float
    highest: float
    bar: float
    alarm_id: str | None = None
    alarm_time: str | None = None
    alarm_after: int | None = None


class Findings(Row):
    """All of it. `unwatched` says why a number has no watch; `last` is the time of the last row."""

    alpha: float
    alpha_each: float
    rows: int
    new_rows: int
    failed: int
    judged: int
    unscored: int
    last: str
    findings: tuple[MonitorFinding, ...]
    unwatched: dict[str, str]
    version: str

    @property
    def alarms(self) -> tuple[MonitorFinding, ...]:
        """The numbers that alarm."""
        return tuple(found for found in self.findings if found.state == "alarm")


def finding_of(watch: MetricMonitor, alpha: float) -> MonitorFinding:
    """What one watch found; `alpha` is its own share."""
    count, total = watch.stream
    alarm = watch.alarm or {}
    return MonitorFinding(
        name=watch.measure.name,
        title=watch.measure.title,
        kind=watch.measure.kind,
        state="alarm" if watch.alarm else "calm" if count else "no values",
        baseline=watch.baseline[1] / watch.baseline[0],
        baseline_n=watch.baseline[0],
        now=total / count if count else None,
        n=count,
        interval=watch.share.interval(alpha) if watch.measure.kind == "share" else None,
        evidence=_factor(watch.wealth.log()),
        highest=_factor(watch.wealth.highest),
        bar=math.exp(watch.bar),
        alarm_id=alarm.get("id"),
        alarm_time=alarm.get("time"),
        alarm_after=alarm.get("values"),
    )


def _factor(log: float) -> float:
    """A wealth, not beyond what floats and JSON can say."""
    return math.exp(min(log, 700.0))
