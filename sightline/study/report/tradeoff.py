"""Trade-offs between hallucination and capability, with the Pareto front of the arms.

Metrics are chosen by a fixed rule, so that no study picks its own. `drawings` draws the plots.
"""

from collections.abc import Iterator, Sequence

from sightline.evals.metrics import Unit
from sightline.records.rows import Estimate, Row
from sightline.study.results import ArmFinding

MOST = 6  # plots on a page
_DIGITS = 12

RULE = (
    "The rule: every primary metric of which less is better stands against the first primary metric of which more is "
    "better, and against the first other metric of its own benchmark of which more is better, a guard against "
    "models that only say less."
)


class Point(Row):
    """An arm: `hallucination` (less is better), `capability` (more is better), and whether it is on the front."""

    arm: str
    hallucination: Estimate
    capability: Estimate
    front: bool


class Side(Row):
    """One metric of a plot."""

    benchmark: str
    metric: str
    label: str
    unit: Unit


class Tradeoff(Row):
    """One plot: two metrics, and the arms that have both."""

    hallucination: Side
    capability: Side
    points: tuple[Point, ...]

    @property
    def front(self) -> tuple[str, ...]:
        """The arms of the front, the fewest hallucinations first."""
        on = [point for point in self.points if point.front]
        return tuple(point.arm for point in sorted(on, key=lambda point: point.hallucination.value or 0.0))


def tradeoffs(findings: Sequence[ArmFinding]) -> tuple[Tradeoff, ...]:
    """The plots that the rule gives, at most `MOST`; none if the evaluation has only one kind of metric."""
    first = {(f.benchmark, f.metric): f for f in reversed(findings)}
    known = [first[key] for key in dict.fromkeys((f.benchmark, f.metric) for f in findings)]
    plots = (_tradeoff(findings, less, more) for less, more in _chosen(known))
    return tuple(plot for plot in plots if len(plot.points) > 1)[:MOST]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each (less is better, more is better) point is on the Pareto front.

    Values are rounded first, since equal means over seeds may differ in the last digits.
    """
    rounded = [(round(x, _DIGITS), round(y, _DIGITS)) for x, y in points]
    return [not any(a <= x and b >= y and (a, b) != (x, y) for a, b in rounded) for x, y in rounded]


def _chosen(known: Sequence[ArmFinding]) -> Iterator[tuple[ArmFinding, ArmFinding]]:
    capability = next((f for f in known if f.primary and f.higher_is_better), None)
    for less in known:
        if not less.primary or less.higher_is_better is not False:
            continue
        guard = next((f for f in known if f.benchmark == less.benchmark and not f.primary and f.higher_is_better), None)
        yield from ((less, more) for more in (capability, guard) if more is not None)


def _tradeoff(findings: Sequence[ArmFinding], less: ArmFinding, more: ArmFinding) -> Tradeoff:
    values = {(f.arm, f.benchmark, f.metric): f.value for f in findings}
    points = []
    for arm in dict.fromkeys(f.arm for f in findings):
        one, other = (values.get((arm, side.benchmark, side.metric)) for side in (less, more))
        if one is not None and other is not None and one.value is not None and other.value is not None:
            points.append((arm, one, other))
    front = pareto_front([(one.value or 0.0, other.value or 0.0) for _, one, other in points])
    return Tradeoff(
        hallucination=_side(less),
        capability=_side(more),
        points=tuple(
            Point(arm=arm, hallucination=one, capability=other, front=on)
            for (arm, one, other), on in zip(points, front, strict=True)
        ),
    )


def _side(found: ArmFinding) -> Side:
    return Side(benchmark=found.benchmark, metric=found.metric, label=found.label, unit=found.unit)
