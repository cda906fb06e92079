"""Numbers with honest intervals: a bootstrap over images (clusters) for one model and for two, seeds too in `crossed`.

It reads scores and metrics and knows no benchmark and no file. Questions on one image are answered by the same model
from the same features, so the image is what is resampled, never the question (Miller 2024, arXiv 2411.00640, sec. 2.2).

A metric is made of sums (`metrics`, `sums`), so a resample is one row of cluster counts times the table of the
clusters' sums, and ten thousand resamples are one matrix product. Intervals are percentile intervals, expanded for the
number of clusters (Hesterberg 2015, arXiv 1411.5279, sec. 5.3), and not BCa: they cover as they promise from 20 images
on (the tests check), and stay defined for shares near 0, where BCa's jackknife is not. Over several training seeds
intervals and p are Student's, from the variance between images and between seeds: no bootstrap of three seeds knows
how heavy their tails are.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import special  # not stats, whose import takes seconds

from sightline.errors import InputError
from sightline.evals.cluster_sums import ClusterSums, CompiledMetrics, FloatArray, add_up
from sightline.evals.crossed import Spread, influences, spread_of
from sightline.evals.metrics import AnyMetric, Metric
from sightline.records.rows import Estimate, Score

RESAMPLES = 10_000
#: Where more than this share of resamples leaves a metric undefined (0 / 0), it gets no interval.
_MOST_UNDEFINED = 0.05
#: Fewer resamples than this beyond 0 do not say how improbable 0 is.
_FEW = 10
#: Resampled counts held at a time; bounds the memory, not the result.
_COUNTS_AT_A_TIME = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """A metric before and after, and after - before, all three over the items that every run scored.

    `by_seed` holds the differences of the single (before, after) pairs; `clusters` is the number of images. `p` is the
    two-sided p of "no difference", from the same quantities as the interval; `p_at` is that of any other true
    difference. `spread` splits the variance of the difference where there are several seeds that differ; None for one
    seed, whose variance between seeds is unknown.
    """

    before: Estimate
    after: Estimate
    difference: Estimate
    by_seed: tuple[float | None, ...]
    clusters: int
    p: float | None
    spread: Spread | None = None
    p_at: Callable[[float], float | None] = field(default=lambda _: None, compare=False, repr=False)


@dataclass(frozen=True)
class _Counts:
    """Items of a figure that were scored and that were not, and the clusters resampled."""

    scored: int
    unscored: int
    clusters: int


def estimate(
    scores: Iterable[Score], metrics: Mapping[str, AnyMetric], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Each metric of one model, with a cluster-bootstrap standard error and a 95 % interval.

    An item that lacks a value the metric needs is left out and counted in `unscored`. A number that cannot be had
    (nothing scored, 0 / 0, fewer than two clusters) is None.
    """
    return estimate_sums(*add_up([scores], metrics), resamples=resamples, seed=seed)


def estimate_sums(
    table: ClusterSums, formulas: CompiledMetrics, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """As `estimate`, of scores that are added up already."""
    points, draws = formulas.values(table.sums.sum(axis=1)), _resample(table, formulas, resamples, seed)
    for m, name in enumerate(formulas.metrics):
        # An official epsilon would make a zero of nothing.
        if not all(table.scored[source] for source in formulas.sources[name]):
            points[:, m] = np.nan
    return {
        name: _single(metric, points[0, m], draws[:, 0, m], _counts(table, name))
        for m, (name, metric) in enumerate(formulas.metrics.items())
    }


def estimate_figure(
    sums: FloatArray,
    figure: Callable[[FloatArray], FloatArray],
    *,
    scored: int,
    unscored: int = 0,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Any figure of sums [cluster, ...] with a cluster-bootstrap standard error and a 95 % interval.

    `figure` takes sums [..., ...] over leading axes of resamples, and gives nan where it is undefined.
    """
    clusters, shape = len(sums), sums.shape[1:]
    if clusters == 0:
        return Estimate(value=None, stderr=None, ci95=None, n=scored, unscored=unscored)
    point = float(figure(sums.sum(axis=0)))
    if clusters < 2:
        return Estimate(value=_number(point), stderr=None, ci95=None, n=scored, unscored=unscored)
    flat = sums.reshape(clusters, -1)
    draws = [figure((counts @ flat).reshape(-1, *shape)) for counts in _cluster_counts(clusters, resamples, seed)]
    return _finish(point, np.concatenate(draws), _Counts(scored, unscored, clusters))


def compare(
    runs: Sequence[tuple[Iterable[Score], Iterable[Score]]],
    metrics: Mapping[str, AnyMetric],
    *,
    settings: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Each metric before and after, paired: the same resampled images on both sides.

    `runs` holds one (before, after) pair of score lists for each training seed; numbers are means over the seeds. All
    of them answer the same samples; an item counts for a metric only where every run scored it, so that the three
    numbers of a row belong together. Images and seeds are crossed, and both are samples, so the interval is about the
    recipe and not about these runs (`crossed`); where the same change was made in several `settings`, which are no
    sample, `runs[setting * seeds + seed]` are averaged over them first. Of a single seed, or of one run that stands on
    its side for every seed, the interval is the bootstrap's over images: the luck of that seed is not in it.
    """
    if not runs:
        raise InputError("there is nothing to compare: give at least one pair of evaluations.")
    if len(runs) % settings:
        raise ValueError(f"{len(runs)} runs are not the same seeds in {settings} settings")
    table, formulas = add_up([scores for pair in runs for scores in pair], metrics)
    points, draws = formulas.values(table.sums.sum(axis=1))[None], _resample(table, formulas, resamples, seed)
    pulls = _influences(table, formulas) if len(runs) > settings else np.zeros((1, 2 * len(runs), len(metrics)))
    before, after = (
        _Side(
            points=_over_settings(points[:, side::2], settings),
            draws=_over_settings(draws[:, side::2], settings),
            pulls=_over_settings(pulls[:, side::2], settings),
        )
        for side in (0, 1)
    )
    difference, result = after.minus(before), {}
    for m, (name, metric) in enumerate(metrics.items()):
        counts = _counts(table, name)
        of_both, p_at, spread = difference.judged(m, metric, counts)
        result[name] = Comparison(
            before=_bounded(before.judged(m, metric, counts)[0], metric, counts),
            after=_bounded(after.judged(m, metric, counts)[0], metric, counts),
            difference=of_both,
            by_seed=tuple(_number(value) for value in difference.points[0, :, m]),
            clusters=counts.clusters,
            p=p_at(0.0),
            spread=spread,
            p_at=p_at,
        )
    return result


@dataclass(frozen=True)
class _Side:
    """Figures of one side of a comparison, or of the difference, each averaged over the settings.

    `points` [1, seed, figure], `draws` [resample, seed, figure], `pulls` [cluster, seed, figure], the influences.
    `least` is the least value of a share.
    """

    points: FloatArray
    draws: FloatArray
    pulls: FloatArray
    least: float = 0.0

    def minus(self, other: "_Side") -> "_Side":
        return _Side(self.points - other.points, self.draws - other.draws, self.pulls - other.pulls, least=-1.0)

    def judged(
        self, m: int, metric: AnyMetric, counts: _Counts
    ) -> tuple[Estimate, Callable[[float], float | None], Spread | None]:
        """The mean over the seeds of a figure, the p of any true value of it, and its spread over images and seeds."""
        values, pulls = self.points[0, :, m], self.pulls[:, :, m].T
        if _is_one(values, pulls):
            only, drawn = float(values[0]), self.draws[:, 0, m]
            return _finish(only, drawn, counts), lambda true: _p_value(only - true, drawn - true, counts), None
        point, draws = float(values.mean()), self.draws[:, :, m].mean(axis=1)
        if np.isnan(pulls).any() or not _is_defined(point, draws):
            return _without_interval(point, counts), lambda _: None, None
        spread = spread_of(values, pulls)
        low, high = point - spread.reach(), point + spread.reach()
        if metric.unit == "share":
            low, high = max(self.least, low), min(1.0, high)
        estimate = Estimate(
            value=point, stderr=spread.stderr, ci95=(low, high), n=counts.scored, unscored=counts.unscored
        )
        return estimate, lambda true: spread.p_value(point - true), spread


def paired_difference(
    before: Iterable[Score], after: Iterable[Score], metric: Metric, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Of one metric, after - before over the items that both scored; identical scores give exactly 0, width 0."""
    return compare([(before, after)], {"metric": metric}, resamples=resamples, seed=seed)["metric"].difference


def _counts(table: ClusterSums, name: str) -> _Counts:
    return _Counts(table.scored[name], table.unscored[name], table.clusters)


def _cluster_counts(clusters: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each cluster is drawn, chunk by chunk: [resample, cluster], every row summing to `clusters`."""
    rng = np.random.default_rng([seed, 0])
    at_a_time = max(1, _COUNTS_AT_A_TIME // max(1, clusters))
    for start in range(0, resamples, at_a_time):
        size = min(at_a_time, resamples - start)
        drawn = rng.integers(clusters, size=(size, clusters)) + np.arange(size)[:, None] * clusters
        yield np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters).astype(np.float64)


def _resample(table: ClusterSums, formulas: CompiledMetrics, resamples: int, seed: int) -> FloatArray:
    """Figures [resample, run, figure]; one product per run, so that equal runs give equal values to the bit."""
    runs, clusters, _ = table.sums.shape
    if clusters < 2:
        return np.full((resamples, runs, len(formulas.metrics)), np.nan)
    chunks = (
        np.stack([formulas.values(counts @ table.sums[run]) for run in range(runs)], axis=1)
        for counts in _cluster_counts(clusters, resamples, seed)
    )
    return np.concatenate(list(chunks))


def _over_settings(values: FloatArray, settings: int) -> FloatArray:
    """[any, setting * seed, figure] -> [any, seed, figure]: the mean over settings."""
    rows, runs, figures = values.shape
    mean: FloatArray = values.reshape(rows, settings, runs // settings, figures).mean(axis=1)
    return mean


def _influences(table: ClusterSums, formulas: CompiledMetrics) -> FloatArray:
    """What each cluster adds to each figure, [cluster, run, figure]; NaN where there are fewer than two clusters."""
    if table.clusters < 2:
        return np.full((1, len(table.sums), len(formulas.metrics)), np.nan)
    return np.moveaxis(influences(table, formulas), 1, 0)


def _is_one(values: FloatArray, pulls: FloatArray) -> bool:
    """Whether there is one seed, or the same run for every seed, so that seeds do not differ at all."""
    same = np.array_equal(values, np.broadcast_to(values[:1], values.shape), equal_nan=True)
    return same and np.array_equal(pulls, np.broadcast_to(pulls[:1], pulls.shape), equal_nan=True)


def _single(metric: AnyMetric, point: float, draws: FloatArray, counts: _Counts) -> Estimate:
    """The estimate of one model's metric."""
    return _bounded(_finish(point, draws, counts), metric, counts)


def _bounded(estimate: Estimate, metric: AnyMetric, counts: _Counts) -> Estimate:
    """An estimate of one model; a share of exactly 0 or 1 needs a bound that no resample and no spread can show."""
    if metric.unit == "share" and estimate.ci95 is not None:
        # Resamples of a constant are that constant: the exact binomial bound, with clusters as trials, is honest.
        bound = float(1 - 0.025 ** (1 / counts.clusters))
        if estimate.ci95 == (0.0, 0.0):
            return estimate.model_copy(update={"ci95": (0.0, bound), "stderr": None})
        if estimate.ci95 == (1.0, 1.0):
            return estimate.model_copy(update={"ci95": (1 - bound, 1.0), "stderr": None})
    return estimate


def _finish(point: float, draws: FloatArray, counts: _Counts) -> Estimate:
    if not _is_defined(point, draws):
        return _without_interval(point, counts)
    defined = draws[np.isfinite(draws)]
    tail = 100 * _tail(counts.clusters)
    low, high = (float(bound) for bound in np.percentile(defined, [tail, 100 - tail]))
    # A constant has no spread; the mean that np.std subtracts may be off by a rounding.
    is_constant = low == high == defined[0] and np.all(defined == low)
    stderr = 0.0 if is_constant else _scale(counts) * float(np.std(defined, ddof=1))
    return Estimate(value=float(point), stderr=stderr, ci95=(low, high), n=counts.scored, unscored=counts.unscored)


def _is_defined(point: float, draws: FloatArray) -> bool:
    """Whether the figure is defined, and in nearly every resample too."""
    return not np.isnan(point) and np.isfinite(draws).sum() >= max(2.0, (1 - _MOST_UNDEFINED) * len(draws))


def _without_interval(point: float, counts: _Counts) -> Estimate:
    return Estimate(value=_number(point), stderr=None, ci95=None, n=counts.scored, unscored=counts.unscored)


def _scale(counts: _Counts) -> float:
    """Resamples of C clusters spread by sqrt((C - 1) / C) too little."""
    return math.sqrt(counts.clusters / (counts.clusters - 1))


def _tail(clusters: int) -> float:
    """The share of resamples beyond each end of a 95 % interval; 2.5 % for many clusters, less for few."""
    reach = math.sqrt(clusters / (clusters - 1)) * special.stdtrit(clusters - 1, 0.975)
    return float(special.ndtr(-reach))


def _p_value(point: float, draws: FloatArray, counts: _Counts) -> float | None:
    """Twice the share of resamples at or beyond 0, by the same expansion as the interval's; never exactly 0.

    Where too few are beyond 0 to be counted, it is Student's, of the difference over its standard error.
    """
    if not _is_defined(point, draws):
        return None
    defined = draws[np.isfinite(draws)]
    beyond = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    share = (beyond + 1) / (len(defined) + 1)
    if share >= 0.5:
        return 1.0
    spread = float(np.std(defined, ddof=1))
    if beyond < _FEW and spread > 0:
        away = abs(point) / (_scale(counts) * spread)
        return float(2 * special.stdtr(counts.clusters - 1, -away))
    reach = -special.ndtri(share) / math.sqrt(counts.clusters / (counts.clusters - 1))
    return float(2 * special.stdtr(counts.clusters - 1, -reach))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
