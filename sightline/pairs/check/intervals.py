"""Intervals of what is measured on pairs: a bootstrap over clusters, of a mean and of an AUC.

The same idea as `evals.statistics`, which this room may not import, for per-pair weights and for ranks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sightline.records import Estimate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bootstrap:
    """The cluster of each pair, and how often and by which seed clusters are drawn."""

    clusters: Sequence[int]
    resamples: int
    seed: int

    def weights(self) -> Iterator[Floats]:
        """How often each pair occurs in a resample."""
        kinds, members = np.unique(np.array(self.clusters, dtype=np.uint64), return_inverse=True)
        rng = np.random.default_rng([self.seed, 1])
        for _ in range(self.resamples if len(kinds) > 1 else 0):
            drawn = np.bincount(rng.integers(len(kinds), size=len(kinds)), minlength=len(kinds))
            yield drawn[members].astype(np.float64)


def mean_estimate(values: Floats, bootstrap: Bootstrap, unscored: int = 0, *, is_share: bool = True) -> Estimate:
    """The mean over pairs with its 95 % interval; None where there are none, without interval for one cluster."""
    made = _estimate(lambda weights: float(weights @ values / weights.sum()), len(values), bootstrap, unscored)
    return _bounded(made, bootstrap) if is_share else made


def auc_estimate(chosen: Floats, rejected: Floats, bootstrap: Bootstrap) -> Estimate:
    """The probability that a score is higher for a chosen answer than for a rejected one of any pair; ties count half.

    0.5 means that the score knows nothing, 1 that it tells all chosen answers from all rejected ones, 0 the reverse.
    """
    scores = np.concatenate([chosen, rejected])
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # NaN differs from every number
    of_pair, is_chosen = order % max(1, len(chosen)), order < len(chosen)

    def auc(weights: Floats) -> float:
        ranked = weights[of_pair]
        above, below = (np.add.reduceat(ranked * side, starts) for side in (is_chosen, ~is_chosen))
        under = np.cumsum(below) - below / 2
        return float(above @ under / weights.sum() ** 2)

    return _bounded(_estimate(auc, len(chosen), bootstrap, 0), bootstrap)


def _bounded(made: Estimate, bootstrap: Bootstrap) -> Estimate:
    """A share of exactly 0 or 1 has no spread to resample: the exact binomial bound, with clusters as trials."""
    if made.ci95 not in ((0.0, 0.0), (1.0, 1.0)):
        return made
    bound = float(1 - 0.025 ** (1 / len(set(bootstrap.clusters))))
    return made.model_copy(update={"ci95": (0.0, bound) if made.value == 0 else (1 - bound, 1.0), "stderr": None})


def _estimate(of: Callable[[Floats], float], count: int, bootstrap: Bootstrap, unscored: int) -> Estimate:
    if not count:
        return Estimate(value=None, stderr=None, ci95=None, n=0, unscored=unscored)
    value = of(np.ones(count))
    draws = [of(weights) for weights in bootstrap.weights()]
    if not draws:
        return Estimate(value=value, stderr=None, ci95=None, n=count, unscored=unscored)
    low, high = (float(bound) for bound in np.percentile(draws, [2.5, 97.5]))
    return Estimate(value=value, stderr=float(np.std(draws, ddof=1)), ci95=(low, high), n=count, unscored=unscored)
