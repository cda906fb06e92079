"""What so many images can see: the power for an effect, the smallest effect of a power, the images that it takes.

All by the noncentral t distribution of a difference over its standard error with C - 1 degrees of freedom. The
standard errors are those of `robust` or `statistics`, so clusters are in them already.
"""

import math
from functools import cache

import numpy as np
from scipy import optimize, special

from sightline.evals.sums import FloatArray

POWER, ALPHA = 0.8, 0.05
_MOST_IMAGES = 10**9
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

    def found(images: int) -> bool:
        return power(effect, stderr * math.sqrt(clusters / images), images, alpha=alpha) >= at

    low, high = 1, 2
    while not found(high):
        low, high = high, 2 * high
        if high > _MOST_IMAGES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high
