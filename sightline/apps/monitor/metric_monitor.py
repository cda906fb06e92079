"""The monitor of one number: ranks, wealth, confidence sequence and alarm.

Its state round-trips through JSON without loss, so that reading a log in parts equals reading it at once.
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

#: Most history points kept for the page; beyond it, every second point is dropped.
_POINTS = 400


@dataclass
class MetricMonitor:
    """The state of one measure. `baseline` and `stream` are (count, sum); `bar` is the log-wealth that raises an alarm.

    `history` has (values seen, log-wealth); `alarm` the row that reached the bar, with its time.
    """

    measure: Measure
    bar: float
    seed: int
    ranks: Ranks
    baseline: tuple[int, float]
    wealth: Wealth = field(default_factory=Wealth.initial)
    stream: tuple[int, float] = (0, 0.0)
    share: Share = field(default_factory=Share)
    history: list[tuple[int, float]] = field(default_factory=list)
    alarm: dict[str, Any] | None = None

    def take(self, row: LoggedRequest, value: float, alpha: float) -> float:
        """Add a row's value; returns its p-value."""
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
        """The state as JSON values."""
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
    def from_state(cls, measure: Measure, bar: float, seed: int, state: dict[str, Any]) -> "MetricMonitor":
        """The inverse of `state`."""
        saved = state["wealth"]
        logs = np.array(saved["logs"], dtype=np.float64).reshape(-1, BETS)
        return cls(
            measure,
            bar,
            seed,
            Ranks.from_counts({int(value): int(count) for value, count in state["ranks"]}),
            (int(state["baseline"][0]), float(state["baseline"][1])),
            Wealth(logs, int(saved["count"]), float(saved["highest"])),
            (int(state["stream"][0]), float(state["stream"][1])),
            Share(**state["share"]),
            [(int(at), float(log)) for at, log in state["history"]],
            state["alarm"],
        )

    def _uniform(self, key: str) -> float:
        """The tie breaker: a function of the row's id only, so that a rerun gives the same."""
        digest = hashlib.sha256(f"{self.seed}/{self.measure.name}/{key}".encode()).digest()
        return int.from_bytes(digest[:8], "little") / 2**64

    def _stride(self) -> int:
        """The current number of values between two history points."""
        return max(1, self.history[-1][0] // _POINTS)


class MonitorFinding(Row):
    """The result of one number. `evidence` and `highest` are the current and highest wealth; `bar` is 1 / its alpha.

    `interval` covers a share at all rows simultaneously, at the same error rate. `alarm_*` locate the alarm.
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
    """The results of a run. `unwatched` gives the reason for each unmonitored number; `last` is the last row's time."""

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
        """The numbers with an alarm."""
        return tuple(found for found in self.findings if found.state == "alarm")


def to_finding(watch: MetricMonitor, alpha: float) -> MonitorFinding:
    """The result of one monitor; `alpha` is its share of the total."""
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
    """A wealth, capped to a finite float."""
    return math.exp(min(log, 700.0))
