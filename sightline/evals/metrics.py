"""What a number over many scores is, as plain data: a ratio or a sum of per-item values, or a figure made of others.

Nothing is read or resampled here. A metric is stored beside the scores it sums, so that any reader can recompute it
without the benchmark; the sums are taken in `sums`, the intervals in `statistics`.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from sightline.errors import InputError
from sightline.records.rows import Row

Unit = Literal["share", "number"]


class Figure(Row):
    """What every number says of itself.

    `higher_is_better` is None where neither direction is good by itself (a yes ratio, a length). A `share` lies in
    [0, 1] and is shown in percent; a `number` is shown as it is. `primary` marks the number to quote for a benchmark.
    """

    label: str
    higher_is_better: bool | None
    unit: Unit = "share"
    primary: bool = False


class Metric(Figure):
    """Sum of weighted values over sum of weighted values, or with `total` the sum itself.

    `numerator` and `denominator` map a name in `Score.values` to its weight; an empty denominator counts one for each
    scored item, so that the metric is a mean. Accuracy, precision, recall, F1 = 2 tp / (2 tp + fp + fn), the yes ratio
    and both CHAIR shares have this form. Being a ratio of sums, it is resampled by adding up clusters. `epsilon` is
    added to the denominator's sum, for official scripts that do so. With `group`, only items of that group count
    (`Score.groups`): others are neither scored nor unscored.
    """

    numerator: dict[str, float]
    denominator: dict[str, float] = Field(default_factory=dict)
    epsilon: float = 0.0
    total: bool = False
    group: str = ""

    def terms(self, values: Mapping[str, float | None], where: str) -> tuple[float, float] | None:
        """The item's share of (numerator, denominator); None where a value that the metric needs is unscored.

        `where` names the row in the InputError raised for a value that is absent altogether.
        """
        for name in (*self.numerator, *self.denominator):
            if name not in values:
                raise InputError(
                    f"{where}: the metric {self.label!r} needs a value {name!r} that the row lacks; score again."
                )
            if values[name] is None:
                return None
        top = sum(weight * (values[name] or 0.0) for name, weight in self.numerator.items())
        if not self.denominator:
            return top, 1.0
        return top, sum(weight * (values[name] or 0.0) for name, weight in self.denominator.items())


class Derived(Figure):
    """A figure made of others: `linear`, sum of weight * part + constant; `harmonic`, 2 a b / (a + b + epsilon);
    `greatest` of the weighted parts; `spread`, their sample standard deviation.

    `parts` maps the names of figures that come before it to their weights, which multiply the parts first in all
    forms. With `decimals` each weighted part is rounded so, where an official script goes on with rounded numbers.
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
    """The mean of one value over the scored items, of one group where it is named."""
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
    """The plain mean of other figures, such as that of POPE's three F1."""
    return Derived(
        label=label,
        kind="linear",
        parts={name: 1.0 / len(parts) for name in parts},
        higher_is_better=higher_is_better,
        unit=unit,
        primary=primary,
    )


def figure_alone(metrics: Mapping[str, AnyMetric], name: str) -> dict[str, AnyMetric]:
    """The figure and all that it is made of, in their order: what is needed to compute it without the others."""
    wanted = {name}
    for other, metric in reversed(list(metrics.items())):  # parts come before what is made of them
        if other in wanted and isinstance(metric, Derived):
            wanted |= metric.parts.keys()
    return {other: metric for other, metric in metrics.items() if other in wanted}


def needed_values(metrics: Mapping[str, AnyMetric]) -> tuple[str, ...]:
    """The names of all per-item values that the metrics sum."""
    found = (
        name
        for metric in metrics.values()
        if isinstance(metric, Metric)
        for name in (*metric.numerator, *metric.denominator)
    )
    return tuple(dict.fromkeys(found))
