"""Estimates and paired comparisons with intervals from a cluster bootstrap over images; several seeds use `crossed`.

The module knows no benchmark and no file. Questions on one image are answered by the same model from the same features,
so images are resampled, never questions (Miller 2024, arXiv 2411.00640, sec. 2.2).

A metric is a function of sums (`metrics`, `cluster_sums`), so a resample is one row of cluster counts times the table
of cluster sums, and ten thousand resamples are one matrix product. Intervals are percentile intervals, expanded for the
number of clusters (Hesterberg 2015, arXiv 1411.5279, sec. 5.3), not BCa: they reach their nominal coverage from 20
images on (tested), and stay defined for shares near 0, where BCa's jackknife does not. Over several training seeds,
intervals and p values are Student's, from the variance between images and between seeds: a bootstrap of three seeds
cannot estimate the tails.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import special  # not stats, whose import takes seconds

from sightline.errors import InputError
from sightline.evals.cluster_sums import ClusterSums, CompiledMetrics, FloatArray, sum_scores
from sightline.evals.crossed import Spread, estimate_spread, influences
from sightline.evals.metrics import AnyMetric
from sightline.records.rows import Estimate, Score

RESAMPLES = 10_000
#: A metric that is undefined (0 / 0) in more than this share of resamples gets no interval.
_MOST_UNDEFINED = 0.05
#: With fewer resamples than this beyond 0, p is not estimated from their share.
_FEW = 10
#: Number of resampled counts in memory at a time; it bounds memory and does not affect the result.
_COUNTS_AT_A_TIME = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """A metric before and after, and after - before, all three over the items that every run scored.

    `by_seed` holds the differences of the single (before, after) pairs; `clusters` is the number of images. `p` is the
    two-sided p of "no difference", from the same quantities as the interval; `p_at` is the p of any other true
    difference. `spread` splits the variance of the difference if several seeds differ; it is None for one seed, since
    the variance between seeds is then unknown.
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
    """Numbers of scored and unscored items of a metric, and of resampled clusters."""

    scored: int
    unscored: int
    clusters: int


def estimate(
    scores: Iterable[Score], metrics: Mapping[str, AnyMetric], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Each metric of one model, with a cluster-bootstrap standard error and a 95 % interval.

    An item that lacks a value the metric needs is left out and counted in `unscored`. An undefined number (nothing
    scored, 0 / 0, fewer than two clusters) is None.
    """
    return estimate_sums(*sum_scores([scores], metrics), resamples=resamples, seed=seed)


def estimate_sums(
    table: ClusterSums, formulas: CompiledMetrics, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """As `estimate`, from sums."""
    points, draws = formulas.values(table.sums.sum(axis=1)), _resample(table, formulas, resamples, seed)
    for m, name in enumerate(formulas.metrics):
        # With an official epsilon, no scored item would give 0.
        if not all(table.scored[source] for source in formulas.sources[name]):
            points[:, m] = np.nan
    estimates = {}
    for m, (name, metric) in enumerate(formulas.metrics.items()):
        counts = _counts(table, name)
        estimates[name] = _with_exact_bound(_bootstrap_estimate(points[0, m], draws[:, 0, m], counts), metric, counts)
    return estimates


def estimate_figure(
    sums: FloatArray,
    figure: Callable[[FloatArray], FloatArray],
    *,
    scored: int,
    unscored: int = 0,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Any function of sums [cluster, ...] with a cluster-bootstrap standard error and a 95 % interval.

    `figure` takes sums [..., ...] with leading axes of resamples, and returns nan where it is undefined.
    """
    clusters, shape = len(sums), sums.shape[1:]
    if clusters == 0:
        return Estimate(value=None, stderr=None, ci95=None, n=scored, unscored=unscored)
    point = float(figure(sums.sum(axis=0)))
    if clusters < 2:
        return Estimate(value=_number(point), stderr=None, ci95=None, n=scored, unscored=unscored)
    flat = sums.reshape(clusters, -1)
    draws = [figure((counts @ flat).reshape(-1, *shape)) for counts in _cluster_counts(clusters, resamples, seed)]
    return _bootstrap_estimate(point, np.concatenate(draws), _Counts(scored, unscored, clusters))


def compare(
    runs: Sequence[tuple[Iterable[Score], Iterable[Score]]],
    metrics: Mapping[str, AnyMetric],
    *,
    settings: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Each metric before and after, paired: the same resampled images on both sides.

    `runs` holds one (before, after) pair of score lists for each training seed; values are means over the seeds. All
    runs answer the same samples; an item counts for a metric only if every run scored it, so that the three numbers of
    a row are consistent. Images and seeds are crossed, and both are samples, so the interval is about the recipe and
    not about these runs (`crossed`). If the same change was made in several `settings`, which are not a sample,
    `runs[setting * seeds + seed]` are averaged over settings first. For a single seed, or one run used for every seed
    of a side, the interval is the bootstrap over images, which does not include the variance between seeds.
    """
    if not runs:
        raise InputError("there is nothing to compare: give at least one pair of evaluations.")
    if len(runs) % settings:
        raise ValueError(f"{len(runs)} runs are not the same seeds in {settings} settings")
    table, formulas = sum_scores([scores for pair in runs for scores in pair], metrics)
    points, draws = formulas.values(table.sums.sum(axis=1))[None], _resample(table, formulas, resamples, seed)
    pulls = _influences(table, formulas) if len(runs) > settings else np.zeros((1, 2 * len(runs), len(metrics)))
    before, after = (
        _Side(
            points=_mean_over_settings(points[:, side::2], settings),
            draws=_mean_over_settings(draws[:, side::2], settings),
            pulls=_mean_over_settings(pulls[:, side::2], settings),
        )
        for side in (0, 1)
    )
    difference, result = after.minus(before), {}
    for m, (name, metric) in enumerate(metrics.items()):
        counts = _counts(table, name)
        of_both, p_at, spread = difference.estimate_metric(m, metric, counts)
        result[name] = Comparison(
            before=_with_exact_bound(before.estimate_metric(m, metric, counts)[0], metric, counts),
            after=_with_exact_bound(after.estimate_metric(m, metric, counts)[0], metric, counts),
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
    """Metrics of one side of a comparison, or of the difference, averaged over the settings.

    `points` [1, seed, metric], `draws` [resample, seed, metric], `pulls` [cluster, seed, metric], the influences.
    `minimum` is the lower bound of a share.
    """

    points: FloatArray
    draws: FloatArray
    pulls: FloatArray
    minimum: float = 0.0

    def minus(self, other: "_Side") -> "_Side":
        return _Side(self.points - other.points, self.draws - other.draws, self.pulls - other.pulls, minimum=-1.0)

    def estimate_metric(
        self, m: int, metric: AnyMetric, counts: _Counts
    ) -> tuple[Estimate, Callable[[float], float | None], Spread | None]:
        """The mean of a metric over the seeds, the p of any true value, and its spread over images and seeds."""
        values, pulls = self.points[0, :, m], self.pulls[:, :, m].T
        if _is_single_run(values, pulls):
            only, drawn = float(values[0]), self.draws[:, 0, m]
            return (
                _bootstrap_estimate(only, drawn, counts),
                lambda true: _p_value(only - true, drawn - true, counts),
                None,
            )
        point, draws = float(values.mean()), self.draws[:, :, m].mean(axis=1)
        if np.isnan(pulls).any() or not _is_defined(point, draws):
            return _without_interval(point, counts), lambda _: None, None
        spread = estimate_spread(values, pulls)
        low, high = point - spread.half_width(), point + spread.half_width()
        if metric.unit == "share":
            low, high = max(self.minimum, low), min(1.0, high)
        estimate = Estimate(
            value=point, stderr=spread.stderr, ci95=(low, high), n=counts.scored, unscored=counts.unscored
        )
        return estimate, lambda true: spread.p_value(point - true), spread


def _counts(table: ClusterSums, name: str) -> _Counts:
    return _Counts(table.scored[name], table.unscored[name], table.clusters)


def _cluster_counts(clusters: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Draw counts of each cluster, in chunks: [resample, cluster]; every row sums to `clusters`."""
    rng = np.random.default_rng([seed, 0])
    at_a_time = max(1, _COUNTS_AT_A_TIME // max(1, clusters))
    for start in range(0, resamples, at_a_time):
        size = min(at_a_time, resamples - start)
        drawn = rng.integers(clusters, size=(size, clusters)) + np.arange(size)[:, None] * clusters
        yield np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters).astype(np.float64)


def _resample(table: ClusterSums, formulas: CompiledMetrics, resamples: int, seed: int) -> FloatArray:
    """Values [resample, run, metric]; one product a run, so that equal runs give bit-identical values."""
    runs, clusters, _ = table.sums.shape
    if clusters < 2:
        return np.full((resamples, runs, len(formulas.metrics)), np.nan)
    chunks = (
        np.stack([formulas.values(counts @ table.sums[run]) for run in range(runs)], axis=1)
        for counts in _cluster_counts(clusters, resamples, seed)
    )
    return np.concatenate(list(chunks))


def _mean_over_settings(values: FloatArray, settings: int) -> FloatArray:
    """[any, setting * seed, metric] -> [any, seed, metric]: the mean over settings."""
    rows, runs, figures = values.shape
    mean: FloatArray = values.reshape(rows, settings, runs // settings, figures).mean(axis=1)
    return mean


def _influences(table: ClusterSums, formulas: CompiledMetrics) -> FloatArray:
    """Contribution of each cluster to each metric, [cluster, run, metric]; NaN for fewer than two clusters."""
    if table.clusters < 2:
        return np.full((1, len(table.sums), len(formulas.metrics)), np.nan)
    return np.moveaxis(influences(table, formulas), 1, 0)


def _is_single_run(values: FloatArray, pulls: FloatArray) -> bool:
    """Whether there is one seed, or the same run for every seed."""
    same = np.array_equal(values, np.broadcast_to(values[:1], values.shape), equal_nan=True)
    return same and np.array_equal(pulls, np.broadcast_to(pulls[:1], pulls.shape), equal_nan=True)


def _with_exact_bound(estimate: Estimate, metric: AnyMetric, counts: _Counts) -> Estimate:
    """The estimate of one model; a share of exactly 0 or 1 gets the exact bound, since its resamples do not vary."""
    if metric.unit == "share" and estimate.ci95 is not None:
        # The exact binomial bound, with clusters as trials.
        bound = float(1 - 0.025 ** (1 / counts.clusters))
        if estimate.ci95 == (0.0, 0.0):
            return estimate.model_copy(update={"ci95": (0.0, bound), "stderr": None})
        if estimate.ci95 == (1.0, 1.0):
            return estimate.model_copy(update={"ci95": (1 - bound, 1.0), "stderr": None})
    return estimate


def _bootstrap_estimate(point: float, draws: FloatArray, counts: _Counts) -> Estimate:
    if not _is_defined(point, draws):
        return _without_interval(point, counts)
    defined = draws[np.isfinite(draws)]
    tail = 100 * _tail(counts.clusters)
    low, high = (float(bound) for bound in np.percentile(defined, [tail, 100 - tail]))
    # A constant has no spread, but np.std may give a rounding error.
    is_constant = low == high == defined[0] and np.all(defined == low)
    stderr = 0.0 if is_constant else _scale(counts) * float(np.std(defined, ddof=1))
    return Estimate(value=float(point), stderr=stderr, ci95=(low, high), n=counts.scored, unscored=counts.unscored)


def _is_defined(point: float, draws: FloatArray) -> bool:
    """Whether the metric is defined, and in nearly every resample too."""
    return not np.isnan(point) and np.isfinite(draws).sum() >= max(2.0, (1 - _MOST_UNDEFINED) * len(draws))


def _without_interval(point: float, counts: _Counts) -> Estimate:
    return Estimate(value=_number(point), stderr=None, ci95=None, n=counts.scored, unscored=counts.unscored)


def _scale(counts: _Counts) -> float:
    """Corrects the spread of resamples of C clusters, which is too small by sqrt((C - 1) / C)."""
    return math.sqrt(counts.clusters / (counts.clusters - 1))


def _tail(clusters: int) -> float:
    """The share of resamples beyond each end of a 95 % interval; 2.5 % for many clusters, less for few."""
    half_width = math.sqrt(clusters / (clusters - 1)) * special.stdtrit(clusters - 1, 0.975)
    return float(special.ndtr(-half_width))


def _p_value(point: float, draws: FloatArray, counts: _Counts) -> float | None:
    """Twice the share of resamples at or beyond 0, expanded like the interval; never exactly 0.

    If too few are beyond 0, it is Student's p of the difference over its standard error.
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
    half_width = -special.ndtri(share) / math.sqrt(counts.clusters / (counts.clusters - 1))
    return float(2 * special.stdtr(counts.clusters - 1, -half_width))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
