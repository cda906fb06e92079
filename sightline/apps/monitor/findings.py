"""What a watch found, as `monitor.json` holds it: each number then and now, its evidence, and whether it alarms."""

import math
from typing import Literal

from sightline.apps.monitor.watch import Watch
from sightline.records.rows import Row


class Finding(Row):
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
    findings: tuple[Finding, ...]
    unwatched: dict[str, str]
    version: str

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The numbers that alarm."""
        return tuple(found for found in self.findings if found.state == "alarm")


def finding_of(watch: Watch, alpha: float) -> Finding:
    """What one watch found; `alpha` is its own share."""
    count, total = watch.stream
    alarm = watch.alarm or {}
    return Finding(
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
