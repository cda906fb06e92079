"""Is it more than chance, over one item's answers (exact McNemar) and over a whole table of differences (Holm)?

Values of p come from `statistics` (the same resamples as the intervals) or from McNemar's test here. Nothing is read
and no verdict word is chosen.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
from scipy import optimize, special

from sightline.evals.cluster_sums import FloatArray, side_by_side
from sightline.evals.crossed import Spread, reach
from sightline.evals.metrics import Metric
from sightline.records.rows import Row, Score


class McNemar(Row):
    """Items that only one of two models has right; `p` is two-sided and exact.

    The test takes items for independent, which questions on one image are not: where they are many an image, the
    paired interval by clusters is the one to believe.
    """

    only_before: int
    only_after: int
    p: float


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Values of p corrected for being several (Holm 1979), in the order given; None stays None and counts for none.

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
    """The exact test over the items that both scored; None where the metric is no mean of zeros and ones."""
    if metric.total or metric.denominator:
        return None
    only = [0, 0]
    for pair in side_by_side([before, after]):
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
    """The two-sided p of so many heads and tails of a fair coin; 1 where there are none."""
    return min(1.0, 2 * float(special.bdtr(min(first, second), first + second, 0.5)))


POWER, ALPHA = 0.8, 0.05
_MOST_IMAGES = 10**9
_MOST_SEEDS = 10**4
_STRIPS = 2000


def power(effect: float, stderr: float, clusters: int, *, alpha: float = ALPHA) -> float:
    """How probably a two-sided test at level `alpha` finds a true effect of this size; NaN below two clusters."""
    if clusters < 2:
        return math.nan
    if stderr == 0:
        return 1.0 if effect else alpha
    freedom = clusters - 1
    critical = special.stdtrit(freedom, 1 - alpha / 2)
    away = abs(effect) / stderr
    # T = (Z + away) / s with s^2 a chi-square by its degrees of freedom: the mean over evenly probable s.
    beyond = critical * _scales(freedom)
    return float(np.mean(special.ndtr(away - beyond) + special.ndtr(-beyond - away)))


@cache
def _scales(freedom: int) -> FloatArray:
    """What Student's t divides by, at the middles of evenly probable strips."""
    strips = (np.arange(_STRIPS) + 0.5) / _STRIPS
    scales: FloatArray = np.sqrt(2 * special.gammaincinv(freedom / 2, strips) / freedom)
    return scales


def smallest_effect(stderr: float, clusters: int, *, at: float = POWER, alpha: float = ALPHA) -> float:
    """The effect that is found with probability `at`: about 2.8 standard errors for 80 % at 5 %."""
    if clusters < 2 or stderr == 0:
        return math.nan if clusters < 2 else 0.0
    ratio = optimize.brentq(
        lambda away: power(away, 1.0, clusters, alpha=alpha) - at, 0.0, 100.0 if clusters > 2 else 1e4
    )
    return float(ratio) * stderr


def images_needed(
    effect: float, stderr: float, clusters: int, *, at: float = POWER, alpha: float = ALPHA
) -> int | None:
    """How many images find the effect with probability `at`, if `clusters` of the same kind gave this standard error.

    None where it would take more than a billion.
    """
    if effect == 0:
        return None
    return _fewest(
        lambda images: power(effect, stderr * math.sqrt(clusters / images), images, alpha=alpha) >= at, _MOST_IMAGES
    )


def power_over_seeds(effect: float, spread: Spread, *, alpha: float = ALPHA) -> float:
    """How probably the test over images and seeds finds a true effect, where `spread` is the true one."""
    between = max(spread.between_seeds, spread.rest)
    deviation = math.sqrt(spread.planned(spread.images, spread.seeds).variance)
    if deviation == 0:
        return 1.0 if effect else alpha
    # The seeds' mean square is a chi-square by its degrees of freedom: the mean over evenly probable values of it.
    drawn = between * _scales(spread.seeds - 1) ** 2
    beyond = reach(spread.parts._replace(between_seeds=drawn), alpha)
    away = abs(effect)
    return float(np.mean(special.ndtr((away - beyond) / deviation) + special.ndtr((-beyond - away) / deviation)))


def smallest_effect_over_seeds(spread: Spread, *, at: float = POWER, alpha: float = ALPHA) -> float:
    """The effect that so many images and seeds find with probability `at`."""
    unit = math.sqrt(spread.planned(spread.images, spread.seeds).variance)
    if unit == 0:
        return 0.0
    ratio = optimize.brentq(lambda away: power_over_seeds(away * unit, spread, alpha=alpha) - at, 0.0, 1e4)
    return float(ratio) * unit


def images_needed_over_seeds(
    effect: float, spread: Spread, *, seeds: int | None = None, at: float = POWER, alpha: float = ALPHA
) -> int | None:
    """How many images find the effect with so many seeds; None where seeds differ too much for any number of them."""
    if effect == 0:
        return None
    trained = seeds or spread.seeds
    return _fewest(
        lambda images: power_over_seeds(effect, spread.planned(images, trained), alpha=alpha) >= at, _MOST_IMAGES
    )


def seeds_needed(effect: float, spread: Spread, *, at: float = POWER, alpha: float = ALPHA) -> int | None:
    """How many seeds find the effect on the same images; None where these images are too few for any number of them."""
    if effect == 0:
        return None
    return _fewest(
        lambda seeds: power_over_seeds(effect, spread.planned(spread.images, seeds), alpha=alpha) >= at, _MOST_SEEDS
    )


def _fewest(found: Callable[[int], bool], most: int) -> int | None:
    """The least number from 2 on that is found; None beyond the most."""
    low, high = 1, 2
    while not found(high):
        low, high = high, 2 * high
        if high > most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high
