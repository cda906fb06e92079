"""Variance, 95 % interval and p value of a mean over training seeds and images, both treated as samples.

Every seed answers the same images, so the design is two-way without replication. With MS for mean squares, the variance
of the mean of S seeds over C images is (MS(images) + MS(seeds) - MS(rest)) / (C S) (Searle, Casella & McCulloch 1992,
ch. 4), with neither component below 0. Its degrees of freedom are Satterthwaite's (1946).

Satterthwaite alone covers 91 to 93 % for three seeds that differ widely: if their spread happens to be small, the
variance is too small and the degrees of freedom are too many at the same time. So a difference must also pass Student's
test of the seed means alone, with S - 1 degrees of freedom, which is exact where seeds dominate. The interval is the
wider of the two and p the larger: p < 0.05 exactly where the 95 % interval excludes 0.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import special

from sightline.evals.cluster_sums import ClusterSums, CompiledMetrics, FloatArray
from sightline.evals.metrics import Derived
from sightline.records.rows import Row

ALPHA = 0.05


class Spread(Row):
    """The three parts of the variance of a mean, each a mean square over C S, in the squared unit of the mean.

    `between_images` is MS(images) / (C S), `between_seeds` MS(seeds) / (C S), `rest` MS(rest) / (C S).
    """

    images: int
    seeds: int
    between_images: float
    between_seeds: float
    rest: float

    @property
    def variance(self) -> float:
        """The variance of the mean; no component of it is negative."""
        return float(_terms(self.parts).variance)

    @property
    def stderr(self) -> float:
        """The standard error of the mean."""
        return math.sqrt(self.variance)

    @property
    def freedom(self) -> float:
        """Satterthwaite's degrees of freedom of the variance."""
        return float(_terms(self.parts).freedom)

    @property
    def parts(self) -> "Parts":
        """The same as arrays."""
        return Parts(self.images, self.seeds, *map(np.asarray, (self.between_images, self.between_seeds, self.rest)))

    def half_width(self, alpha: float = ALPHA) -> float:
        """Half the width of the interval at level 1 - alpha."""
        return float(half_width(self.parts, alpha))

    def p_value(self, distance: float) -> float:
        """Two-sided p of a mean at this distance from a value; below alpha where the distance exceeds `half_width`."""
        return float(p_values(self.parts, np.asarray(distance)))

    def with_design(self, images: int, seeds: int) -> "Spread":
        """The expected spread of this many images and seeds from the same population."""
        mine = self.images * self.seeds
        of_images = max(0.0, self.between_images - self.rest) * self.images  # the variance of one image's own effect
        of_seeds = max(0.0, self.between_seeds - self.rest) * self.seeds
        rest = self.rest * mine / (images * seeds)
        return Spread(
            images=images,
            seeds=seeds,
            between_images=of_images / images + rest,
            between_seeds=of_seeds / seeds + rest,
            rest=rest,
        )


class Parts(NamedTuple):
    """`Spread` of many means at once, one array each."""

    images: int
    seeds: int
    between_images: FloatArray
    between_seeds: FloatArray
    rest: FloatArray


class _Terms(NamedTuple):
    variance: FloatArray
    freedom: FloatArray


def estimate_spread(values: FloatArray, influences: FloatArray) -> Spread:
    """The spread of a metric from its values [seed] and influences [seed, cluster]."""
    parts = estimate_parts(values, influences)
    return Spread(
        images=parts.images,
        seeds=parts.seeds,
        between_images=float(parts.between_images),
        between_seeds=float(parts.between_seeds),
        rest=float(parts.rest),
    )


def estimate_parts(values: FloatArray, influences: FloatArray) -> Parts:
    """As `estimate_spread`, over leading axes: values [..., seed] and influences [..., seed, cluster]."""
    seeds, clusters = influences.shape[-2:]
    if seeds < 2 or clusters < 2:
        raise ValueError(f"{seeds} seeds and {clusters} clusters have no spread")
    common = influences.mean(axis=-2, keepdims=True)
    scale = clusters / (clusters - 1)
    return Parts(
        images=clusters,
        seeds=seeds,
        between_images=scale * np.sum(common[..., 0, :] ** 2, axis=-1),
        between_seeds=np.var(values, axis=-1, ddof=1) / seeds,
        rest=scale * np.sum((influences - common) ** 2, axis=(-2, -1)) / ((seeds - 1) * seeds),
    )


def half_width(parts: Parts, alpha: float = ALPHA) -> FloatArray:
    """Half the widths of the intervals: the wider of the two-way interval and the seeds' own."""
    variance, freedom = _terms(parts)
    two_way = np.sqrt(variance) * special.stdtrit(freedom, 1 - alpha / 2)
    alone: FloatArray = np.sqrt(parts.between_seeds) * special.stdtrit(parts.seeds - 1, 1 - alpha / 2)
    wider: FloatArray = np.maximum(two_way, alone)
    return wider


def p_values(parts: Parts, distances: FloatArray) -> FloatArray:
    """The larger p of the same two tests, for means at these distances from a value."""
    variance, freedom = _terms(parts)
    away = np.abs(distances)
    with np.errstate(divide="ignore", invalid="ignore"):
        two_way = 2 * special.stdtr(freedom, -away / np.sqrt(variance))
        alone = 2 * special.stdtr(parts.seeds - 1, -away / np.sqrt(parts.between_seeds))
    larger: FloatArray = np.where(away == 0, 1.0, np.maximum(two_way, alone))
    return larger


def _terms(parts: Parts) -> _Terms:
    """The variance, and Satterthwaite's degrees of freedom of its mean squares."""
    images, seeds, rest = parts.between_images, parts.between_seeds, parts.rest
    has_images, has_seeds = images > rest, seeds > rest  # a component that would be negative is 0
    weights = (has_images * 1.0, has_seeds * 1.0, 1.0 - has_images - has_seeds)
    variance = weights[0] * images + weights[1] * seeds + weights[2] * rest
    own = (parts.images - 1, parts.seeds - 1, (parts.images - 1) * (parts.seeds - 1))
    below = sum((w * part) ** 2 / df for w, part, df in zip(weights, (images, seeds, rest), own, strict=True))
    most = float(parts.images - 1)
    freedom = np.divide(variance**2, below, out=np.full_like(variance, most), where=np.asarray(below) > 0)
    return _Terms(variance, np.minimum(freedom, most))


def influences(table: ClusterSums, formulas: CompiledMetrics) -> FloatArray:
    """First-order contribution of each cluster to each metric, [run, cluster, metric]; ratios sum to 0."""
    totals = table.sums.sum(axis=1)
    values = dict(zip(formulas.metrics, np.moveaxis(formulas.values(totals), -1, 0), strict=True))
    found: dict[str, FloatArray] = {}
    for m, (name, metric) in enumerate(formulas.basic.items()):
        top, bottom = table.sums[..., 2 * m], table.sums[..., 2 * m + 1]
        if metric.total:
            # A sum over C clusters drawn with replacement: their deviations from the mean cluster.
            found[name] = top - top.mean(axis=1, keepdims=True) + 0 * values[name][:, None]
            continue
        whole = totals[:, 2 * m + 1] + metric.epsilon
        with np.errstate(divide="ignore", invalid="ignore"):
            found[name] = (top - values[name][:, None] * (bottom + metric.epsilon / table.clusters)) / whole[:, None]
    for name, figure in formulas.metrics.items():
        if isinstance(figure, Derived):
            slopes = _slopes(figure, values)
            parts = [slope[:, None] * found[part] for part, slope in zip(figure.parts, slopes, strict=True)]
            found[name] = np.sum(parts, axis=0)
    return np.stack([found[name] for name in formulas.metrics], axis=-1)


def _slopes(figure: Derived, values: Mapping[str, FloatArray]) -> list[FloatArray]:
    """The derivative of a metric with respect to each part, ignoring rounding; NaN at a spread of 0."""
    weights = list(figure.parts.values())
    if figure.kind == "linear":
        return [np.full_like(next(iter(values.values())), weight) for weight in weights]
    parts = np.stack([weight * values[name] for name, weight in figure.parts.items()])
    if figure.kind == "greatest":
        first = parts.argmax(axis=0)
        return [np.where(first == place, weight, 0.0) for place, weight in enumerate(weights)]
    with np.errstate(divide="ignore", invalid="ignore"):
        if figure.kind == "spread":
            away = (parts - parts.mean(axis=0)) / (len(parts) - 1) / np.std(parts, axis=0, ddof=1)
            return [weight * slope for weight, slope in zip(weights, away, strict=True)]
        one, other = parts
        bottom = (one + other + figure.epsilon) ** 2
        return [
            weights[0] * 2 * other * (other + figure.epsilon) / bottom,
            weights[1] * 2 * one * (one + figure.epsilon) / bottom,
        ]
