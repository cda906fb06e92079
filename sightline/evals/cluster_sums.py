"""Sums over clusters from streams of scores; every metric and its resamples are computed from them.

Rows are discarded once added. Only one row of sums a cluster is kept, for at most `MOST_CLUSTERS` clusters, so memory
does not grow with the number of answers. Resampling is in `statistics`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sightline.errors import InputError
from sightline.evals.metrics import AnyMetric, Derived, Metric
from sightline.records.rows import Score

FloatArray = NDArray[np.float64]

#: Additional clusters are merged into earlier ones by the hash of their names. Whole clusters are merged, so they stay
#: independent; enough remain that the spread between them is known to half a percent.
MOST_CLUSTERS = 20_000
_ROWS_AT_A_TIME = 4096

#: The key by which rows are summed alike: groups, names of values, and which values are None.
_Kind = tuple[tuple[str, ...], tuple[str, ...], tuple[bool, ...]]


@dataclass(frozen=True)
class ClusterSums:
    """`sums[run, cluster, 2 * metric + (0 numerator | 1 denominator)]` of the basic metrics.

    `scored` and `unscored` count items for every metric, basic or derived; `clusters` is the number of clusters.
    """

    sums: FloatArray
    scored: Mapping[str, int]
    unscored: Mapping[str, int]
    clusters: int


class CompiledMetrics:
    """A benchmark's metrics compiled to a function: totals [..., 2 * basic] -> values [..., metric], in order."""

    def __init__(self, metrics: Mapping[str, AnyMetric]) -> None:
        self.metrics = dict(metrics)
        self.basic = {name: metric for name, metric in metrics.items() if isinstance(metric, Metric)}
        self.sources: dict[str, tuple[str, ...]] = {}
        for name, metric in metrics.items():
            self.sources[name] = (name,) if isinstance(metric, Metric) else self._sources(name, metric)

    def values(self, totals: FloatArray) -> FloatArray:
        """Values of all metrics; NaN where a denominator is 0 or a part is NaN."""
        found: dict[str, FloatArray] = {}
        for m, (name, metric) in enumerate(self.basic.items()):
            top, bottom = totals[..., 2 * m], totals[..., 2 * m + 1] + metric.epsilon
            if metric.total:
                found[name] = np.where(totals[..., 2 * m + 1] != 0, top, np.nan)
                continue
            found[name] = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom != 0)
        for name, figure in self.metrics.items():
            if isinstance(figure, Derived):
                found[name] = _combine(figure, found)
        return np.stack([found[name] for name in self.metrics], axis=-1)

    def _sources(self, name: str, metric: Derived) -> tuple[str, ...]:
        for part in metric.parts:
            if part not in self.sources:
                raise ValueError(f"the metric {name!r} uses {part!r}, which does not come before it")
        if metric.kind == "harmonic" and len(metric.parts) != 2:
            raise ValueError(f"the harmonic mean {name!r} needs two parts")
        if metric.kind == "spread" and len(metric.parts) < 2:
            raise ValueError(f"the spread {name!r} needs two parts or more")
        return tuple(dict.fromkeys(source for part in metric.parts for source in self.sources[part]))


def _combine(figure: Derived, found: Mapping[str, FloatArray]) -> FloatArray:
    parts = [weight * found[name] for name, weight in figure.parts.items()]
    if figure.decimals is not None:
        parts = [np.round(part, figure.decimals) for part in parts]
    if figure.kind == "linear":
        total: FloatArray = np.sum(parts, axis=0) + figure.constant
        return total
    if figure.kind == "greatest":
        most: FloatArray = np.max(parts, axis=0)
        return most
    if figure.kind == "spread":
        spread: FloatArray = np.std(parts, axis=0, ddof=1)
        return spread
    one, other = parts
    bottom = one + other + figure.epsilon
    # Both parts 0 and no epsilon is 0 / 0.
    ratio: FloatArray = np.divide(2 * one * other, bottom, out=np.full_like(bottom, np.nan), where=bottom != 0)
    return ratio


@dataclass
class _MetricPlan:
    """Weights by which rows of one kind are summed, with their counts and a buffer of rows not yet added."""

    weights: list[FloatArray]  # one [value, 2 * basic] a run; zero where an item is unscored or of another group
    ones: FloatArray  # [2 * basic]: what each item adds to the denominator of a mean
    scored: tuple[str, ...]
    unscored: tuple[str, ...]
    items: int = 0
    clusters: list[int] = field(default_factory=list)
    rows: list[list[tuple[float | None, ...]]] = field(default_factory=list)


class Sums:
    """Accumulator of the scores of one or several runs over the same items; `table` returns the sums."""

    def __init__(self, metrics: Mapping[str, AnyMetric], runs: int = 1) -> None:
        self.formulas = CompiledMetrics(metrics)
        self._columns = 2 * len(self.formulas.basic)
        self._sums = np.zeros((runs, 64, self._columns))
        self._clusters: dict[str, int] = {}
        self._plans: dict[tuple[_Kind | None, ...], _MetricPlan] = {}
        self._met = 0

    def add(self, scores: Sequence[Score | None]) -> None:
        """Add one item: its score in every run, None where a run lacks it. At least one score must be present."""
        first = next(score for score in scores if score is not None)
        kinds = tuple(None if score is None else _kind(score) for score in scores)
        plan = self._plans.get(kinds)
        if plan is None:
            plan = self._plans[kinds] = self._plan(scores)
        plan.items += 1
        plan.clusters.append(self._row(first))
        plan.rows.append([() if score is None else tuple(score.values.values()) for score in scores])
        if len(plan.clusters) >= _ROWS_AT_A_TIME:
            self._flush(plan)

    def table(self) -> ClusterSums:
        """The sums of all scores added so far."""
        for plan in self._plans.values():
            self._flush(plan)
        scored = dict.fromkeys(self.formulas.metrics, 0)
        unscored = dict.fromkeys(self.formulas.metrics, 0)
        for plan in self._plans.values():
            for name in plan.scored:
                scored[name] += plan.items
            for name in plan.unscored:
                unscored[name] += plan.items
        rows = len(self._clusters)
        return ClusterSums(self._sums[:, :rows].copy(), scored, unscored, rows)

    def _row(self, score: Score) -> int:
        """The row of the score's cluster; a sample without a cluster is its own."""
        name = score.cluster or f"sample:{score.sample_id}"
        row = self._clusters.get(name)
        if row is not None:
            return row
        if len(self._clusters) >= MOST_CLUSTERS:
            return crc32(name.encode()) % MOST_CLUSTERS
        row = self._clusters[name] = len(self._clusters)
        if row >= self._sums.shape[1]:
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)], axis=1)
        return row

    def _plan(self, scores: Sequence[Score | None]) -> _MetricPlan:
        """Decide for each basic metric whether the item counts, and check that the values it needs are present."""
        weights = [np.zeros((0 if score is None else len(score.values), self._columns)) for score in scores]
        ones = np.zeros(self._columns)
        state: dict[str, bool] = {}  # applies and is scored, applies and is not; absent where it does not apply
        for m, (name, metric) in enumerate(self.formulas.basic.items()):
            groups = {group for score in scores if score is not None for group in score.groups}
            if metric.group and metric.group not in groups:
                continue
            state[name] = all(
                score is not None and metric.terms(score.values, f"score of {score.sample_id!r}") is not None
                for score in scores
            )
            if not state[name]:
                continue
            ones[2 * m + 1] = 1.0 if metric.total or not metric.denominator else 0.0
            for matrix, score in zip(weights, scores, strict=True):
                names = list(score.values) if score else []
                for side, weighted in enumerate((metric.numerator, {} if metric.total else metric.denominator)):
                    for value, weight in weighted.items():
                        matrix[names.index(value), 2 * m + side] += weight
        figures = {
            name: [state[source] for source in sources if source in state]
            for name, sources in self.formulas.sources.items()
        }
        return _MetricPlan(
            weights,
            ones,
            scored=tuple(name for name, found in figures.items() if found and all(found)),
            unscored=tuple(name for name, found in figures.items() if not all(found)),
            rows=[],
        )

    def _flush(self, plan: _MetricPlan) -> None:
        if not plan.clusters:
            return
        at = np.array(plan.clusters)
        for run, weights in enumerate(plan.weights):
            values = np.array([row[run] for row in plan.rows], np.float64).reshape(len(at), len(weights))
            np.add.at(self._sums[run], at, np.nan_to_num(values) @ weights + plan.ones)
        plan.clusters, plan.rows = [], []


def _kind(score: Score) -> _Kind:
    return score.groups, tuple(score.values), tuple([value is None for value in score.values.values()])


def sum_scores(
    runs: Sequence[Iterable[Score]], metrics: Mapping[str, AnyMetric]
) -> tuple[ClusterSums, CompiledMetrics]:
    """The sums of one or several runs; their scores of one item are matched by sample id.

    A single run is streamed.

    Raises:
        InputError: a run has an item twice, or a value that a metric needs is absent.
    """
    added = Sums(metrics, len(runs))
    for scores in align_scores(runs):
        added.add(scores)
    return added.table(), added.formulas


def align_scores(runs: Sequence[Iterable[Score]]) -> Iterable[Sequence[Score | None]]:
    """The scores of each item in every run, in the order of the first run; items of later runs only come last."""
    if len(runs) == 1:
        yield from ([score] for score in require_unique(runs[0]))
        return
    by_id = [{score.sample_id: score for score in require_unique(scores)} for scores in runs]
    for sample_id in dict.fromkeys(name for scores in by_id for name in scores):
        yield [scores.get(sample_id) for scores in by_id]


def require_unique(scores: Iterable[Score]) -> Iterable[Score]:
    """The scores unchanged; raises an InputError at the second score of a sample."""
    seen: set[str] = set()
    for score in scores:
        if score.sample_id in seen:
            raise InputError(f"sample {score.sample_id!r} has more than one score; score the answers again.")
        seen.add(score.sample_id)
        yield score
