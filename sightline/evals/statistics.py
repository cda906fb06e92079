"""Numbers with honest intervals: a bootstrap over images (clusters), for one model, for two, and over several seeds.

It reads scores and metrics and knows no benchmark and no file. Questions on one image are answered by the same model
from the same features, so the image is what is resampled, never the question (Miller 2024, arXiv 2411.00640, sec. 2.2).

A metric is made of sums (`metrics`, `sums`), so a resample is one row of cluster counts times the table of the
clusters' sums, and ten thousand resamples are one matrix product. Intervals are percentile intervals, expanded for the
number of clusters (Hesterberg 2015, arXiv 1411.5279, sec. 5.3), and not BCa: they cover as they promise from 20 images
on (the tests check), and stay defined for shares near 0 and for several seeds, where BCa's jackknife is not.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special  # not stats, whose import takes seconds

from sightline.errors import InputError
from sightline.evals.metrics import AnyMetric, Metric
from sightline.evals.sums import FloatArray, Formulas, Table, add_up
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

    `by_seed` holds the differences of the single (before, after) pairs; `clusters` is the number of images resampled.
    `p` is the two-sided value of the same resamples, by their share on the far side of 0.
    """

    before: Estimate
    after: Estimate
    difference: Estimate
    by_seed: tuple[float | None, ...]
    clusters: int
    p: float | None


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
    table: Table, formulas: Formulas, *, resamples: int = RESAMPLES, seed: int = 0
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
    numbers of a row belong together. Images and seeds are crossed, and both are resampled, so the interval is about
    the recipe and not about these runs; where the same change was made in several `settings`, which are not resampled,
    `runs[setting * seeds + seed]` are averaged over them first. A bootstrap of S seeds has (S - 1) / S of their
    variance, so their deviations are scaled up by sqrt(S / (S - 1)) (Davison & Hinkley 1997, sec. 3.8). The luck of a
    single seed is not in the interval, and three of them know their own spread but roughly.
    """
    if not runs:
        raise InputError("there is nothing to compare: give at least one pair of evaluations.")
    table, formulas = add_up([scores for pair in runs for scores in pair], metrics)
    points, draws = formulas.values(table.sums.sum(axis=1)), _resample(table, formulas, resamples, seed)
    if len(runs) % settings:
        raise ValueError(f"{len(runs)} runs are not the same seeds in {settings} settings")
    befores, afters = (_over_settings(draws[:, side::2], settings) for side in (0, 1))
    points_before, points_after = (_over_settings(points[None, side::2], settings)[0] for side in (0, 1))
    seeds = len(runs) // settings
    picked = np.random.default_rng([seed, 1]).integers(seeds, size=(resamples, seeds))
    result = {}
    for m, (name, metric) in enumerate(metrics.items()):
        differences = points_after[:, m] - points_before[:, m]
        before, after, spread = (
            _over_seeds(values, picked)
            for values in (befores[:, :, m], afters[:, :, m], afters[:, :, m] - befores[:, :, m])
        )
        counts = _counts(table, name)
        result[name] = Comparison(
            before=_single(metric, points_before[:, m].mean(), before, counts),
            after=_single(metric, points_after[:, m].mean(), after, counts),
            difference=_finish(differences.mean(), spread, counts),
            by_seed=tuple(_number(value) for value in differences),
            clusters=counts.clusters,
            p=_p_value(differences.mean(), spread, counts),
        )
    return result


def paired_difference(
    before: Iterable[Score], after: Iterable[Score], metric: Metric, *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Of one metric, after - before over the items that both scored; identical scores give exactly 0, width 0."""
    return compare([(before, after)], {"metric": metric}, resamples=resamples, seed=seed)["metric"].difference


def _counts(table: Table, name: str) -> _Counts:
    return _Counts(table.scored[name], table.unscored[name], table.clusters)


def _cluster_counts(clusters: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each cluster is drawn, chunk by chunk: [resample, cluster], every row summing to `clusters`."""
    rng = np.random.default_rng([seed, 0])
    at_a_time = max(1, _COUNTS_AT_A_TIME // max(1, clusters))
    for start in range(0, resamples, at_a_time):
        size = min(at_a_time, resamples - start)
        drawn = rng.integers(clusters, size=(size, clusters)) + np.arange(size)[:, None] * clusters
        yield np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters).astype(np.float64)


def _resample(table: Table, formulas: Formulas, resamples: int, seed: int) -> FloatArray:
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
    """[resample, setting * seed, figure] -> [resample, seed, figure]: the mean over settings."""
    resamples, runs, figures = values.shape
    mean: FloatArray = values.reshape(resamples, settings, runs // settings, figures).mean(axis=1)
    return mean


def _over_seeds(values: FloatArray, picked: NDArray[np.int64]) -> FloatArray:
    """[resample, seed] -> [resample]: the mean over resampled seeds, their deviations scaled to be unbiased."""
    center: FloatArray = values.mean(axis=1)
    seeds = values.shape[1]
    if seeds == 1:
        return center
    drawn = np.take_along_axis(values, picked, axis=1).mean(axis=1)
    scaled: FloatArray = center + np.sqrt(seeds / (seeds - 1)) * (drawn - center)
    return scaled


def _single(metric: AnyMetric, point: float, draws: FloatArray, counts: _Counts) -> Estimate:
    """The estimate of one model's metric; a share of exactly 0 or 1 needs a bound that no resample can show."""
    made = _finish(point, draws, counts)
    if metric.unit == "share" and made.ci95 is not None:
        # Resamples of a constant are that constant: the exact binomial bound, with clusters as trials, is honest.
        bound = float(1 - 0.025 ** (1 / counts.clusters))
        if made.ci95 == (0.0, 0.0):
            return made.model_copy(update={"ci95": (0.0, bound), "stderr": None})
        if made.ci95 == (1.0, 1.0):
            return made.model_copy(update={"ci95": (1 - bound, 1.0), "stderr": None})
    return made


def _finish(point: float, draws: FloatArray, counts: _Counts) -> Estimate:
    scored, unscored = counts.scored, counts.unscored
    defined = draws[np.isfinite(draws)]
    if np.isnan(point) or len(defined) < max(2.0, (1 - _MOST_UNDEFINED) * len(draws)):
        return Estimate(value=_number(point), stderr=None, ci95=None, n=scored, unscored=unscored)
    tail = 100 * _tail(counts.clusters)
    low, high = (float(bound) for bound in np.percentile(defined, [tail, 100 - tail]))
    # A constant has no spread; the mean that np.std subtracts may be off by a rounding.
    is_constant = low == high == defined[0] and np.all(defined == low)
    stderr = 0.0 if is_constant else _scale(counts) * float(np.std(defined, ddof=1))
    return Estimate(value=float(point), stderr=stderr, ci95=(low, high), n=scored, unscored=unscored)


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
    defined = draws[np.isfinite(draws)]
    if np.isnan(point) or len(defined) < max(2.0, (1 - _MOST_UNDEFINED) * len(draws)):
        return None
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
