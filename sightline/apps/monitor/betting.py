"""Anytime-valid sequential tests: checked after every row, they keep their false-alarm rate.

A monitor's numbers arrive one by one. Each is ranked among the baseline's and all earlier ones, which gives a smoothed
conformal p-value: as long as rows are exchangeable with the baseline (no drift), these are independent and uniform,
whatever the numbers' distribution and however small the baseline (Vovk, Gammerman & Shafer 2005; Vovk, Nouretdinov &
Gammerman 2003, "Testing exchangeability on-line"). Wealth bet against uniformity is then a martingale that starts at 1,
and it ever reaches 1 / alpha with probability at most alpha (Ville 1939), at any row.

Bets are densities on [0, 1]: linear ones, and powers that pay where p is near an end (Vovk et al. 2003, sec. 4). A
drift may begin at any time, so the wealth is a mixture over bets and over the row at which they begin (weights
1 / (k (k + 1)) for the k-th block of rows; the part not yet begun stays 1): a long stretch without drift costs 2 log k
nats, not the wealth. Confidence sequences of shares are the empirical-Bernstein ones of Waudby-Smith & Ramdas (2024,
arXiv 2010.09686, theorem 2), similar to Howard et al. (2021, arXiv 1810.08240).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

#: Slopes of linear bets 1 + slope (p - 1/2) and exponents of power bets kappa p^(kappa - 1), at either end.
_SLOPES = (-1.9, -1.2, -0.6, 0.6, 1.2, 1.9)
_POWERS = (0.3, 0.5, 0.7)
BETS = len(_SLOPES) + 2 * len(_POWERS)
#: Rows between two starts of the bets.
BLOCK = 100
#: Lower limit of a p-value: a rank among finitely many is never 0, which would be an infinite bet.
_LEAST = 1e-9


def log_bets(p: float | FloatArray) -> FloatArray:
    """Log payoff of each bet at p-values, [..., bet]; every bet has mean payoff 1 under uniform p."""
    clipped = np.clip(np.asarray(p, dtype=np.float64), _LEAST, 1 - _LEAST)[..., None]
    linear = np.log1p(np.array(_SLOPES) * (clipped - 0.5))
    powers = np.array(_POWERS)
    low = np.log(powers) + (powers - 1) * np.log(clipped)
    high = np.log(powers) + (powers - 1) * np.log1p(-clipped)
    return np.concatenate([linear, low, high], axis=-1)


@dataclass
class Wealth:
    """The wealth of one monitor: logarithms [started block, bet], and the number of p-values so far."""

    logs: FloatArray
    count: int = 0
    highest: float = 0.0

    @classmethod
    def initial(cls) -> "Wealth":
        """Before the first p-value."""
        return cls(np.zeros((0, BETS)))

    def bet(self, p: float) -> float:
        """Bet on a p-value; returns the log-wealth after it."""
        if self.count % BLOCK == 0:
            self.logs = np.vstack([self.logs, np.zeros((1, BETS))])
        self.logs += log_bets(p)
        self.count += 1
        now = self.log()
        self.highest = max(self.highest, now)
        return now

    def log(self) -> float:
        """The log-wealth: started blocks by their weights, and 1 for future ones."""
        begun = len(self.logs)
        k = np.arange(1, begun + 1)
        weights = np.repeat(-np.log(k * (k + 1.0)) - math.log(BETS), BETS)
        parts = np.append(self.logs.ravel() + weights, -math.log(begun + 1))
        top = float(parts.max())
        return top + math.log(float(np.exp(parts - top).sum()))


@dataclass
class Ranks:
    """Counts of grid values (integers) over baseline and stream."""

    counts: dict[int, int]
    total: int = 0

    @classmethod
    def from_counts(cls, counts: Mapping[int, int]) -> "Ranks":
        """The ranks of a baseline."""
        return cls(dict(counts), sum(counts.values()))

    def p_value(self, value: int, uniform: float) -> float:
        """The smoothed conformal p-value (rank from above) of a new value, which is then counted.

        `uniform` in [0, 1) breaks ties, and must be drawn independently of the value.
        """
        above = sum(count for seen, count in self.counts.items() if seen > value)
        equal = self.counts.get(value, 0) + 1
        self.counts[value] = equal
        self.total += 1
        return (above + uniform * equal) / self.total


@dataclass
class Share:
    """A confidence sequence for a mean of values in [0, 1], valid at all rows simultaneously.

    Waudby-Smith & Ramdas, theorem 2 (predictable plug-in, empirical Bernstein); only its sums are stored.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    weights: float = 0.0
    weighted: float = 0.0
    spread: float = 0.0

    def add(self, value: float, alpha: float) -> None:
        """Add a value in [0, 1]."""
        seen = self.count + 1
        mean, variance = (0.5 + self.total) / seen, (0.25 + self.squares) / seen
        bet = min(math.sqrt(2 * math.log(2 / alpha) / (variance * seen * math.log(1 + seen))), 0.5)
        self.weights += bet
        self.weighted += bet * value
        self.spread += 4 * (value - mean) ** 2 * (-math.log1p(-bet) - bet) / 4
        self.count, self.total = seen, self.total + value
        self.squares += (value - (0.5 + self.total) / (seen + 1)) ** 2

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """The current bounds; None before the first value."""
        if not self.count:
            return None
        center, reach = self.weighted / self.weights, (math.log(2 / alpha) + self.spread) / self.weights
        return max(0.0, center - reach), min(1.0, center + reach)
