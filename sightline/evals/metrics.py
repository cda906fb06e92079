"""Metrics as plain data: a ratio or a sum of per-item values, or a combination of other metrics.

A metric is stored beside the scores it sums, so that any reader can recompute it without the benchmark. Sums are
computed in `cluster_sums`, intervals in `statistics`.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from sightline.errors import InputError
from sightline.records.rows import Row

Unit = Literal["share", "number"]


class Figure(Row):
    """Fields common to all metrics.

    `higher_is_better` is None where neither direction is better (a yes ratio, a length). A `share` lies in [0, 1] and
    is shown in percent; a `number` is shown unchanged. `primary` marks the metric to quote for a benchmark.
    """

    label: str
    higher_is_better: bool | None
    unit: Unit = "share"
    primary: bool = False


class Metric(Figure):
    """Sum of weighted values over sum of weighted values, or with `total` the sum itself.

    `numerator` and `denominator` map a name in `Score.values` to its weight; an empty denominator counts one for each
    scored item, so that the metric is a mean. Accuracy, precision, recall, F1 = 2 tp / (2 tp + fp + fn), the yes ratio
    and both CHAIR shares have this form. As a ratio of sums it is resampled by adding up clusters. `epsilon` is added
    to the denominator's sum, as some official scripts do. With `group`, only items of that group count
    (`Score.groups`): others are neither scored nor unscored.
    """

    numerator: dict[str, float]
    denominator: dict[str, float] = Field(default_factory=dict)
    epsilon: float = 0.0
    total: bool = False
    group: str = ""

    def terms(self, values: Mapping[str, float | None], where: str) -> tuple[float, float] | None:
        """The item's contribution to (numerator, denominator); None where a value that the metric needs is unscored.

        `where` names the row in the InputError that is raised if a value is absent.
        """
        for name in (*self.numerator, *self.denominator):
            if name not in values:
                raise InputError(
                    f"{where}: the metric {self.label!r} needs the value {name!r}, which the row lacks; score again."
                )
            if values[name] is None:
                return None
        top = sum(weight * (values[name] or 0.0) for name, weight in self.numerator.items())
        if not self.denominator:
            return top, 1.0
        return top, sum(weight * (values[name] or 0.0) for name, weight in self.denominator.items())


class Derived(Figure):
    """A metric combined from others: `linear`, sum of weight * part + constant; `harmonic`, 2 a b / (a + b + epsilon);
    `greatest` of the weighted parts; `spread`, their sample standard deviation.

    `parts` maps names of earlier metrics to their weights, which multiply the parts first in all forms. With `decimals`
    each weighted part is rounded to that many decimals, as in official scripts that continue with rounded numbers.
    """

    kind: Literal["linear", "harmonic", "greatest", "spread"]
    parts: dict[str, float] = Field(min_length=1)
    constant: float = 0.0
    epsilon: float = 0.0
    decimals: int | None = None


AnyMetric = Metric | Derived


def mean(
    column: str,
    label: str,
    *,
    higher_is_better: bool | None,
    unit: Unit = "share",
    primary: bool = False,
    group: str = "",
) -> Metric:
    """The mean of one value over the scored items, or over those of `group`."""
    return Metric(
        label=label,
        numerator={column: 1.0},
        higher_is_better=higher_is_better,
        unit=unit,
        primary=primary,
        group=group,
    )


def count(column: str, label: str, *, higher_is_better: bool | None = None, group: str = "") -> Metric:
    """The sum of one value over the scored items."""
    return Metric(
        label=label, numerator={column: 1.0}, higher_is_better=higher_is_better, unit="number", total=True, group=group
    )


def average(
    parts: tuple[str, ...],
    label: str,
    *,
    higher_is_better: bool | None,
    unit: Unit = "share",
    primary: bool = False,
) -> Derived:
    """The plain mean of other metrics, such as POPE's three F1 scores."""
    return Derived(
        label=label,
        kind="linear",
        parts={name: 1.0 / len(parts) for name in parts},
        higher_is_better=higher_is_better,
        unit=unit,
        primary=primary,
    )


def metric_with_parts(metrics: Mapping[str, AnyMetric], name: str) -> dict[str, AnyMetric]:
    """The metric and all its parts, in their order: everything that is needed to compute it alone."""
    wanted = {name}
    for other, metric in reversed(list(metrics.items())):  # parts come before the metrics that use them
        if other in wanted and isinstance(metric, Derived):
            wanted |= metric.parts.keys()
    return {other: metric for other, metric in metrics.items() if other in wanted}


def required_values(metrics: Mapping[str, AnyMetric]) -> tuple[str, ...]:
    """The names of all per-item values that the metrics sum."""
    found = (
        name
        for metric in metrics.values()
        if isinstance(metric, Metric)
        for name in (*metric.numerator, *metric.denominator)
    )
    return tuple(dict.fromkeys(found))
