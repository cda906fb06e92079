"""The numbers of the report: every metric of a base and an aligned model, with the paired difference.

`evals.comparison` compares and chooses the verdicts; `formatting` writes numbers for readers.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from sightline.errors import InputError
from sightline.evals.answer_stats import ANSWER_METRICS
from sightline.evals.comparison import Evaluation, MetricDifference, compare_metrics, with_holm
from sightline.evals.crossed import Spread
from sightline.evals.directory import BenchmarkResult
from sightline.evals.metrics import AnyMetric, Metric
from sightline.evals.registry import COUNTER_SUFFIX
from sightline.evals.significance import mcnemar, smallest_effect, smallest_effect_over_seeds
from sightline.evals.statistics import Comparison
from sightline.records.rows import Estimate, Row
from sightline.report.formatting import difference_text, interval_text, value_text


class MetricResult(MetricDifference):
    """One metric on one benchmark. `p_holm` is corrected for all metrics of the table that have a direction.

    `smallest_effect` is what so many images and seeds detect with 80 % power; `spread` has the variance between
    images and between seeds, None for one seed. `mcnemar_p` is exact, of one seed's
    answers that are right or wrong.
    """

    base: Estimate
    aligned: Estimate
    difference: Estimate
    smallest_effect: float | None = None
    mcnemar_p: float | None = None
    spread: Spread | None = None


class BenchmarkComparison(Row):
    """One benchmark; `family` is its name without the suffix of its counter-prior twin.

    `remarks` are sentences on how it was scored, prefixed with their sides unless they apply to all.
    """

    name: str
    family: str
    condition: Literal["natural", "counter-prior"]
    metrics: dict[str, MetricResult]
    remarks: tuple[str, ...] = ()


class Results(Row):
    """The contents of `results.json`. `left_out` names benchmarks that not every side has."""

    headline: str
    seeds: int
    verdicts: dict[str, int]
    benchmarks: dict[str, BenchmarkComparison]
    left_out: tuple[str, ...] = ()


def compare_evaluations(base: Evaluation, aligned: Sequence[Evaluation], *, resamples: int, seed: int) -> Results:
    """Compare the base model's evaluation with those of the aligned models, one per training seed.

    The headline is about the first benchmark of `base` that has a primary metric.

    Raises:
        InputError: no benchmark in common, or metrics that were defined differently.
    """
    sides = (base, *aligned)
    common = [name for name in base if all(name in side for side in sides)]
    if not common:
        raise InputError(
            f"the evaluations have no benchmark in common (base: {', '.join(base)}); evaluate both models on the same."
        )
    benchmarks = _corrected({name: _compare_benchmark(name, base, aligned, resamples, seed) for name in common})
    counted: Counter[str] = Counter(
        result.verdict for benchmark in benchmarks.values() for result in benchmark.metrics.values()
    )
    return Results(
        headline=headline(list(benchmarks.values()), len(aligned)),
        seeds=len(aligned),
        verdicts=dict(counted),
        benchmarks=benchmarks,
        left_out=tuple(dict.fromkeys(name for side in sides for name in side if name not in common)),
    )


def headline(benchmarks: Sequence[BenchmarkComparison], seeds: int) -> str:
    """One sentence with the numbers of the first primary metric."""
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
    results = [result for benchmark in benchmarks.values() for result in benchmark.metrics.values()]
    corrected = iter(with_holm(results, lambda result: result.higher_is_better is not None))
    return {
        name: benchmark.model_copy(update={"metrics": {key: next(corrected) for key in benchmark.metrics}})
        for name, benchmark in benchmarks.items()
    }


def _compare_benchmark(
    name: str, base: Evaluation, aligned: Sequence[Evaluation], resamples: int, seed: int
) -> BenchmarkComparison:
    before, afters = base[name], [side[name] for side in aligned]
    for after in afters:
        if dict(after.metrics) != dict(before.metrics):
            raise InputError(f"{after.folder} and {before.folder} define their metrics differently; score both again.")
    compared = compare_metrics([(base, side) for side in aligned], name, resamples=resamples, seed=seed)
    return BenchmarkComparison(
        name=name,
        family=name.removesuffix(COUNTER_SUFFIX),
        condition="counter-prior" if name.endswith(COUNTER_SUFFIX) else "natural",
        metrics={
            key: _metric_result(metric, found, before, afters)
            for key, metric, found in compared
            if not _is_undefined(key, metric, found)
        },
        remarks=_remarks(before, afters),
    )


def _remarks(before: BenchmarkResult, afters: Sequence[BenchmarkResult]) -> tuple[str, ...]:
    """Every remark once, in the order of the sides, prefixed with the sides that have it unless all do."""
    names = ["base", *(f"aligned {number}" if len(afters) > 1 else "aligned" for number in range(1, len(afters) + 1))]
    sides = dict(zip(names, (before, *afters), strict=True))
    lines = []
    for remark in dict.fromkeys(remark for side in sides.values() for remark in side.remarks):
        of = [name for name, side in sides.items() if remark in side.remarks]
        lines.append(remark if len(of) == len(sides) else f"{', '.join(of)}: {remark}")
    return tuple(lines)


def _is_undefined(name: str, metric: AnyMetric, found: Comparison) -> bool:
    """Whether a general metric is undefined for the benchmark, such as a yes ratio where nothing asks for a yes."""
    return ANSWER_METRICS.get(name) == metric and found.before.value is None and found.after.value is None


def _metric_result(
    metric: AnyMetric, found: Comparison, before: BenchmarkResult, afters: Sequence[BenchmarkResult]
) -> MetricResult:
    exact = None
    if isinstance(metric, Metric) and len(afters) == 1:
        exact = mcnemar(before.scores, afters[0].scores, metric)
    return MetricResult.of(
        metric,
        found,
        base=found.before,
        aligned=found.after,
        smallest_effect=_smallest_effect(found),
        mcnemar_p=exact.p if exact else None,
        spread=found.spread,
    )


def _smallest_effect(found: Comparison) -> float | None:
    if found.spread is not None:
        return smallest_effect_over_seeds(found.spread)
    stderr = found.difference.stderr
    return None if stderr is None else smallest_effect(stderr, found.clusters)
