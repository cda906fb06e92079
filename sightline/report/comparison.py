"""The numbers of the report: every metric before and after alignment, the paired difference, and its verdict.

A verdict word follows the interval and nothing else. How numbers are written for people is `formatting`; how they are
computed is `evals.statistics`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from sightline.errors import InputError
from sightline.evals.answer_stats import ANSWER_METRICS
from sightline.evals.crossed import Spread
from sightline.evals.directory import BenchmarkResult
from sightline.evals.metrics import AnyMetric, Metric
from sightline.evals.registry import COUNTER_SUFFIX
from sightline.evals.significance import holm, mcnemar, smallest_effect, smallest_effect_over_seeds
from sightline.evals.statistics import Comparison, compare
from sightline.records.rows import Estimate, Row
from sightline.report.formatting import difference_text, interval_text, value_text

Verdict = Literal["better", "worse", "higher", "lower", "within noise", "not estimable"]


class MetricResult(Row):
    """One metric on one benchmark. `by_seed` holds each training seed's difference, `images` the clusters resampled.

    `p` is of the same test as the interval, `p_holm` corrected for all metrics of the table that have a direction.
    `smallest_effect` is what so many images and seeds show with 80 % power; `spread` has the variance between images
    and between seeds, None for one seed, whose figures say nothing of other seeds. `mcnemar_p` is exact, of one seed's
    answers that are right or wrong.
    """

    label: str
    unit: Literal["share", "number"]
    higher_is_better: bool | None
    primary: bool
    base: Estimate
    aligned: Estimate
    difference: Estimate
    verdict: Verdict
    by_seed: tuple[float | None, ...]
    images: int
    p: float | None = None
    p_holm: float | None = None
    smallest_effect: float | None = None
    mcnemar_p: float | None = None
    spread: Spread | None = None


class BenchmarkComparison(Row):
    """One benchmark: `family` is its name without the suffix of its counter-prior twin.

    `remarks` are sentences on how it was scored, with the side that they are about where it is not every side.
    """

    name: str
    family: str
    condition: Literal["natural", "counter-prior"]
    metrics: dict[str, MetricResult]
    remarks: tuple[str, ...] = ()


class Results(Row):
    """All of it, as `results.json` holds it. `left_out` names benchmarks that only one side has."""

    headline: str
    seeds: int
    verdicts: dict[str, int]
    benchmarks: dict[str, BenchmarkComparison]
    left_out: tuple[str, ...] = ()


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


Evaluation = Mapping[str, BenchmarkResult]


def compare_evaluations(base: Evaluation, aligned: Sequence[Evaluation], *, resamples: int, seed: int) -> Results:
    """Compare the base model's evaluation with those of the aligned models, one for each training seed.

    The first benchmark of `base` that has a primary metric makes the headline.

    Raises:
        InputError: no benchmark in common, or metrics that were defined differently.
    """
    sides = (base, *aligned)
    common = [name for name in base if all(name in side for side in sides)]
    if not common:
        raise InputError(
            f"the evaluations have no benchmark in common (base: {', '.join(base)}); evaluate both models on the same."
        )
    benchmarks = _corrected(
        {name: _compare_benchmark(base[name], [side[name] for side in aligned], resamples, seed) for name in common}
    )
    counted: Counter[str] = Counter(
        made.verdict for benchmark in benchmarks.values() for made in benchmark.metrics.values()
    )
    return Results(
        headline=headline(list(benchmarks.values()), len(aligned)),
        seeds=len(aligned),
        verdicts=dict(counted),
        benchmarks=benchmarks,
        left_out=tuple(dict.fromkeys(name for side in sides for name in side if name not in common)),
    )


def headline(benchmarks: Sequence[BenchmarkComparison], seeds: int) -> str:
    """One sentence about the first primary metric, made of its numbers."""
    found = next(((b, m) for b in benchmarks for m in b.metrics.values() if m.primary), None)
    if found is None:
        return "The benchmarks name no primary metric; the table has every number."
    benchmark, metric = found
    before, after = value_text(metric.base.value, metric.unit), value_text(metric.aligned.value, metric.unit)
    points = " points" if metric.unit == "share" else ""
    over = f"{metric.images} images" + (f" and {seeds} training seeds" if seeds > 1 else "")
    return (
        f"{metric.label} ({benchmark.name}) went from {before} to {after} with alignment: a difference of "
        f"{difference_text(metric.difference.value, metric.unit)}{points}, 95 % interval "
        f"{interval_text(metric.difference.ci95, metric.unit, signed=True)}, over {over}: {metric.verdict}."
    )


def _corrected(benchmarks: Mapping[str, BenchmarkComparison]) -> dict[str, BenchmarkComparison]:
    """With `p_holm`: one family of all metrics that have a direction, since each of them could be quoted."""
    family = [
        (name, key, made.p)
        for name, benchmark in benchmarks.items()
        for key, made in benchmark.metrics.items()
        if made.higher_is_better is not None
    ]
    found = dict(zip([(name, key) for name, key, _ in family], holm([p for *_, p in family]), strict=True))
    return {
        name: benchmark.model_copy(
            update={
                "metrics": {
                    key: made.model_copy(update={"p_holm": found.get((name, key))})
                    for key, made in benchmark.metrics.items()
                }
            }
        )
        for name, benchmark in benchmarks.items()
    }


def _compare_benchmark(
    before: BenchmarkResult, afters: Sequence[BenchmarkResult], resamples: int, seed: int
) -> BenchmarkComparison:
    for after in afters:
        if dict(after.metrics) != dict(before.metrics):
            raise InputError(f"{after.folder} and {before.folder} define their metrics differently; score both again.")
    compared = compare(
        [(before.scores, after.scores) for after in afters], before.metrics, resamples=resamples, seed=seed
    )
    counter = before.name.endswith(COUNTER_SUFFIX)
    return BenchmarkComparison(
        name=before.name,
        family=before.name.removesuffix(COUNTER_SUFFIX),
        condition="counter-prior" if counter else "natural",
        metrics={
            name: _metric_result(metric, compared[name], before, afters)
            for name, metric in before.metrics.items()
            if not _says_nothing(name, metric, compared[name])
        },
        remarks=_remarks(before, afters),
    )


def _remarks(before: BenchmarkResult, afters: Sequence[BenchmarkResult]) -> tuple[str, ...]:
    """Every remark once, in the order of the sides, behind the names of those that have it unless all do."""
    names = ["base", *(f"aligned {number}" if len(afters) > 1 else "aligned" for number in range(1, len(afters) + 1))]
    sides = dict(zip(names, (before, *afters), strict=True))
    told = []
    for remark in dict.fromkeys(remark for side in sides.values() for remark in side.remarks):
        of = [name for name, side in sides.items() if remark in side.remarks]
        told.append(remark if len(of) == len(sides) else f"{', '.join(of)}: {remark}")
    return tuple(told)


def _says_nothing(name: str, metric: AnyMetric, made: Comparison) -> bool:
    """Whether a general metric is undefined for the benchmark, such as a yes ratio where nothing asks for a yes."""
    return ANSWER_METRICS.get(name) == metric and made.before.value is None and made.after.value is None


def _metric_result(
    metric: AnyMetric, made: Comparison, before: BenchmarkResult, afters: Sequence[BenchmarkResult]
) -> MetricResult:
    exact = None
    if isinstance(metric, Metric) and len(afters) == 1:
        exact = mcnemar(before.scores, afters[0].scores, metric)
    return MetricResult(
        label=metric.label,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        primary=metric.primary,
        base=made.before,
        aligned=made.after,
        difference=made.difference,
        verdict=verdict(made.difference, metric.higher_is_better),
        by_seed=made.by_seed,
        images=made.clusters,
        p=made.p,
        smallest_effect=_smallest_effect(made),
        mcnemar_p=exact.p if exact else None,
        spread=made.spread,
    )


def _smallest_effect(made: Comparison) -> float | None:
    if made.spread is not None:
        return smallest_effect_over_seeds(made.spread)
    stderr = made.difference.stderr
    return None if stderr is None else smallest_effect(stderr, made.clusters)
