"""Comparing evaluations: the paired difference of every metric, its verdict, and Holm's correction over a family.

It chooses neither the sides nor the family: `report.comparison` compares a base model with aligned ones, and
`study.results` and `study.report.ingredients` the arms of a study. The numbers come from `statistics`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from sightline.evals.directory import BenchmarkResult
from sightline.evals.metrics import AnyMetric, Unit
from sightline.evals.significance import holm
from sightline.evals.statistics import RESAMPLES, Comparison, compare
from sightline.records.rows import Estimate, Row, Score

Evaluation = Mapping[str, BenchmarkResult]
Verdict = Literal["better", "worse", "higher", "lower", "within noise", "not estimable"]

#: The keys of a stored difference in order, whichever record it is.
_ORDER = (
    *("ingredient", "before", "after", "pairings", "arm", "benchmark", "metric"),
    *("label", "unit", "higher_is_better", "primary", "base", "aligned", "value"),
    *("difference", "verdict", "by_seed", "images", "p", "p_holm", "smallest_effect", "mcnemar_p", "spread"),
)


class MetricDifference(Row):
    """One metric's paired difference; records add which sides were compared and their own values.

    `difference` is None and `verdict` empty where a side is the baseline itself. `by_seed` holds the difference of each
    training seed, `images` the number of clusters resampled. `p` is of the same test as the interval, `p_holm` is
    corrected for the family that the record belongs to.
    """

    label: str
    unit: Unit
    higher_is_better: bool | None
    primary: bool
    difference: Estimate | None
    verdict: Verdict | Literal[""]
    by_seed: tuple[float | None, ...]
    images: int
    p: float | None = None
    p_holm: float | None = None

    @classmethod
    def of(cls, metric: AnyMetric, found: Comparison, /, *, is_baseline: bool = False, **own: Any) -> Self:
        """The record of a comparison; `own` are the fields that the record adds."""
        return cls(
            label=metric.label,
            unit=metric.unit,
            higher_is_better=metric.higher_is_better,
            primary=metric.primary,
            difference=None if is_baseline else found.difference,
            verdict="" if is_baseline else verdict(found.difference, metric.higher_is_better),
            by_seed=found.by_seed,
            images=found.clusters,
            p=None if is_baseline else found.p,
            **own,
        )

    @model_serializer(mode="wrap")
    def _in_order(self, stored: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return dict(sorted(stored(self).items(), key=lambda item: _ORDER.index(item[0])))


D = TypeVar("D", bound=MetricDifference)


def verdict(difference: Estimate, higher_is_better: bool | None) -> Verdict:
    """The word for a difference: by its 95 % interval, and by the metric's direction, if it has one."""
    if difference.ci95 is None:
        return "not estimable"
    low, high = difference.ci95
    if low <= 0 <= high:
        return "within noise"
    rose = low > 0
    if higher_is_better is None:
        return "higher" if rose else "lower"
    return "better" if rose == higher_is_better else "worse"


def compare_metrics(
    runs: Sequence[tuple[Evaluation, Evaluation]],
    benchmark: str,
    *,
    settings: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Iterator[tuple[str, AnyMetric, Comparison]]:
    """(name, metric, comparison) of every metric of a benchmark; runs are (before, after), ordered as in `compare`."""
    metrics = runs[0][0][benchmark].metrics
    scores: list[tuple[Sequence[Score], Sequence[Score]]] = [
        (before[benchmark].scores, after[benchmark].scores) for before, after in runs
    ]
    compared = compare(scores, metrics, settings=settings, resamples=resamples, seed=seed)
    yield from ((name, metric, compared[name]) for name, metric in metrics.items())


def with_holm(differences: Sequence[D], is_in_family: Callable[[D], bool]) -> tuple[D, ...]:
    """The same records with `p_holm`, corrected over those that are in the family; None for the others."""
    family = [found for found in differences if is_in_family(found)]
    corrected = {id(found): p for found, p in zip(family, holm([found.p for found in family]), strict=True)}
    return tuple(found.model_copy(update={"p_holm": corrected.get(id(found))}) for found in differences)
