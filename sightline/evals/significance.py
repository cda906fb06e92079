"""Significance and power: the exact McNemar test, Holm's correction, and the size of effects, images and seeds needed.

Other p values come from `statistics`, from the same resamples as the intervals.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
from scipy import optimize, special

from sightline.evals.cluster_sums import FloatArray, align_scores
from sightline.evals.crossed import Spread, half_width
from sightline.evals.metrics import Metric
from sightline.records.rows import Row, Score


class McNemar(Row):
    """Counts of items that only one of two models has right; `p` is two-sided and exact.

    The test assumes independent items. Questions on one image are dependent: with many questions an image, rely on the
    paired interval over clusters.
    """

    only_before: int
    only_after: int
    p: float


def holm(values: Sequence[float | None]) -> list[float | None]:
    """The p values after Holm's correction (1979), in the order given; None stays None and is not counted.

    The k-th smallest of m is multiplied by m - k + 1, made no smaller than the one before it, and at most 1.
    """
    places = sorted((value, place) for place, value in enumerate(values) if value is not None)
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (value, place) in enumerate(places):
        largest = max(largest, min(1.0, value * (len(places) - rank)))
        corrected[place] = largest
    return corrected


def mcnemar(before: Iterable[Score], after: Iterable[Score], metric: Metric) -> McNemar | None:
    """The exact test over the items that both scored; None unless the metric is a mean of zeros and ones."""
    if metric.total or metric.denominator:
        return None
    only = [0, 0]
    for pair in align_scores([before, after]):
        if any(score is None or (metric.group and metric.group not in score.groups) for score in pair):
            continue
        terms = [metric.terms(score.values, f"score of {score.sample_id!r}") for score in pair if score is not None]
        if any(term is None for term in terms):
            continue
        one, other = (term[0] for term in terms if term is not None)
        if not {one, other} <= {0.0, 1.0}:
            return None
        if one != other:
            only[int(other > one)] += 1
    return McNemar(only_before=only[0], only_after=only[1], p=exact_binomial(only[0], only[1]))


def exact_binomial(first: int, second: int) -> float:
    """The two-sided p of these numbers of heads and tails for a fair coin; 1 if both are 0."""
    return min(1.0, 2 * float(special.bdtr(min(first, second), first + second, 0.5)))


POWER, ALPHA = 0.8, 0.05
_MOST_IMAGES = 10**9
_MOST_SEEDS = 10**4
_STRIPS = 2000


def power(effect: float, stderr: float, clusters: int, *, alpha: float = ALPHA) -> float:
    """The power of a two-sided test at level `alpha` for a true effect of this size; NaN below two clusters."""
    if clusters < 2:
        return math.nan
    if stderr == 0:
        return 1.0 if effect else alpha
    freedom = clusters - 1
    critical = special.stdtrit(freedom, 1 - alpha / 2)
    away = abs(effect) / stderr
    # T = (Z + away) / s, where s^2 is a chi-square over its degrees of freedom: the mean over equally probable s.
    beyond = critical * _scales(freedom)
    return float(np.mean(special.ndtr(away - beyond) + special.ndtr(-beyond - away)))


@cache
def _scales(freedom: int) -> FloatArray:
    """The denominator of Student's t at the middles of equally probable strips."""
    strips = (np.arange(_STRIPS) + 0.5) / _STRIPS
    scales: FloatArray = np.sqrt(2 * special.gammaincinv(freedom / 2, strips) / freedom)
    return scales


def smallest_effect(stderr: float, clusters: int, *, at: float = POWER, alpha: float = ALPHA) -> float:
    """The effect that is detected with power `at`: about 2.8 standard errors for 80 % at level 5 %."""
    if clusters < 2 or stderr == 0:
        return math.nan if clusters < 2 else 0.0
    ratio = optimize.brentq(
        lambda away: power(away, 1.0, clusters, alpha=alpha) - at, 0.0, 100.0 if clusters > 2 else 1e4
    )
    return float(ratio) * stderr


def images_needed(
    effect: float, stderr: float, clusters: int, *, at: float = POWER, alpha: float = ALPHA
) -> int | None:
    """The number of images that detect the effect with power `at`, if `clusters` images gave this standard error.

    None if it exceeds a billion.
    """
    if effect == 0:
        return None
    return _smallest_count(
        lambda images: power(effect, stderr * math.sqrt(clusters / images), images, alpha=alpha) >= at, _MOST_IMAGES
    )


def power_over_seeds(effect: float, spread: Spread, *, alpha: float = ALPHA) -> float:
    """The power of the test over images and seeds for a true effect, if `spread` is the true spread."""
    between = max(spread.between_seeds, spread.rest)
    deviation = math.sqrt(spread.with_design(spread.images, spread.seeds).variance)
    if deviation == 0:
        return 1.0 if effect else alpha
    # The seeds' mean square is a chi-square over its degrees of freedom: the mean over equally probable values of it.
    drawn = between * _scales(spread.seeds - 1) ** 2
    beyond = half_width(spread.parts._replace(between_seeds=drawn), alpha)
    away = abs(effect)
    return float(np.mean(special.ndtr((away - beyond) / deviation) + special.ndtr((-beyond - away) / deviation)))


def smallest_effect_over_seeds(spread: Spread, *, at: float = POWER, alpha: float = ALPHA) -> float:
    """The effect that these numbers of images and seeds detect with power `at`."""
    unit = math.sqrt(spread.with_design(spread.images, spread.seeds).variance)
    if unit == 0:
        return 0.0
    ratio = optimize.brentq(lambda away: power_over_seeds(away * unit, spread, alpha=alpha) - at, 0.0, 1e4)
    return float(ratio) * unit


def images_needed_over_seeds(
    effect: float, spread: Spread, *, seeds: int | None = None, at: float = POWER, alpha: float = ALPHA
) -> int | None:
    """The number of images that detect the effect with these seeds; None if the seeds differ too much for any."""
    if effect == 0:
        return None
    trained = seeds or spread.seeds
    return _smallest_count(
        lambda images: power_over_seeds(effect, spread.with_design(images, trained), alpha=alpha) >= at, _MOST_IMAGES
    )


def seeds_needed(effect: float, spread: Spread, *, at: float = POWER, alpha: float = ALPHA) -> int | None:
    """The number of seeds that detect the effect on the same images; None if the images are too few for any."""
    if effect == 0:
        return None
    return _smallest_count(
        lambda seeds: power_over_seeds(effect, spread.with_design(spread.images, seeds), alpha=alpha) >= at, _MOST_SEEDS
    )


def _smallest_count(found: Callable[[int], bool], most: int) -> int | None:
    """The least number from 2 on for which `found` is True; None beyond `most`."""
    low, high = 1, 2
    while not found(high):
        low, high = high, 2 * high
        if high > most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high
