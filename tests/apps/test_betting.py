"""The promise of the monitors: false alarms at most as often as said, whoever looks however often; and power."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import integrate

from sightline.apps.monitor.betting import BETS, BLOCK, FloatArray, Ranks, Share, Wealth, log_bets

ALPHA = 0.05
Draw = Callable[[np.random.Generator, int], FloatArray]


def test_every_bet_is_fair() -> None:
    """Its payoff is a density: it integrates to 1 over uniform p-values."""
    for bet in range(BETS):
        total, _ = integrate.quad(lambda p, bet=bet: math.exp(log_bets(p)[bet]), 0, 1, limit=200)
        assert total == pytest.approx(1, abs=2e-3)


def test_wealth_by_hand() -> None:
    """One p-value: half the weight has begun and pays the mean of the bets, half has not and is 1."""
    wealth = Wealth.initial()
    assert wealth.log() == 0
    paid = float(np.exp(log_bets(0.02)).mean())
    assert wealth.bet(0.02) == pytest.approx(math.log(0.5 * paid + 0.5))
    assert log_bets(0.02)[0] == pytest.approx(math.log(1 - 1.9 * (0.02 - 0.5)))
    assert log_bets(0.02)[6] == pytest.approx(math.log(0.3 * 0.02**-0.7))
    assert np.allclose(np.sort(log_bets(0.02)), np.sort(log_bets(0.98)))  # both ends alike
    for _ in range(BLOCK):
        wealth.bet(0.5)
    assert len(wealth.logs) == 2 and wealth.highest >= wealth.log()
    assert wealth.log() >= math.log(1 / 3)  # what has not begun yet stays: 1 - 1/2 - 1/6


def test_p_values_by_hand() -> None:
    ranks = Ranks.from_counts({1: 2, 3: 1})
    assert ranks.p_value(3, 0.5) == (0 + 0.5 * 2) / 4
    assert ranks.p_value(0, 0.25) == (4 + 0.25) / 5
    assert ranks.p_value(2, 0.0) == 2 / 6
    assert ranks.counts == {1: 2, 3: 2, 0: 1, 2: 1}


def p_values(stream: FloatArray, baseline: int, rng: np.random.Generator) -> FloatArray:
    """[stream, row]: all smoothed conformal p-values, by plain comparison with everything before."""
    streams, length = stream.shape
    values = np.empty((streams, length - baseline))
    for t in range(baseline, length):
        now, before = stream[:, t, None], stream[:, :t]
        above, equal = (before > now).sum(1), (before == now).sum(1) + 1
        values[:, t - baseline] = (above + rng.random(streams) * equal) / (t + 1)
    return values


def paths(p: FloatArray) -> FloatArray:
    """[stream, row]: the logarithm of each stream's wealth after each row, computed for all streams at once."""
    streams, length = p.shape
    sums = np.cumsum(log_bets(p), axis=1)
    blocks = -(-length // BLOCK)
    logs = np.full((streams, length), -np.inf)
    for k in range(1, blocks + 1):
        start = (k - 1) * BLOCK
        before = sums[:, start - 1, None] if start else 0.0
        part = sums[:, start:] - before - math.log(k * (k + 1) * BETS)
        logs[:, start:] = np.logaddexp(logs[:, start:], np.log(np.exp(part).sum(axis=2)))
    begun = np.arange(length) // BLOCK + 1
    path: FloatArray = np.logaddexp(logs, -np.log(begun + 1.0))
    return path


def test_the_fast_paths_are_the_class() -> None:
    p = np.random.default_rng(0).random((2, 2 * BLOCK + 7))
    for row, path in zip(p, paths(p), strict=True):
        wealth = Wealth.initial()
        assert np.allclose([wealth.bet(float(one)) for one in row], path)


def test_the_fast_p_values_are_the_class() -> None:
    values = np.random.default_rng(1).integers(0, 5, size=(1, 60)).astype(float)
    fast = p_values(values, 20, np.random.default_rng(2))
    ranks, uniforms = (
        Ranks.from_counts({k: int((values[0, :20] == k).sum()) for k in range(5)}),
        np.random.default_rng(2),
    )
    assert np.allclose(fast[0], [ranks.p_value(int(v), float(uniforms.random(1)[0])) for v in values[0, 20:]])


CALM: dict[str, Draw] = {
    "lengths": lambda rng, n: np.round(rng.lognormal(3, 1, (2000, n)), 0),
    "yes or no": lambda rng, n: (rng.random((2000, n)) < 0.4).astype(float),
    "rare refusals": lambda rng, n: (rng.random((2000, n)) < 0.01).astype(float),
    "heavy tails": lambda rng, n: rng.standard_cauchy((2000, n)),
}


@pytest.mark.parametrize(
    ("name", "baseline"), [("lengths", 10), ("yes or no", 150), ("rare refusals", 100), ("heavy tails", 40)]
)
def test_false_alarms_are_at_most_alpha_however_often_one_looks(name: str, baseline: int) -> None:
    """2,000 streams without drift, looked at after each of 250 rows; a baseline of ten is as safe as a large one."""
    rng = np.random.default_rng([baseline, len(name)])
    stream = CALM[name](rng, baseline + 250)
    alarms = (paths(p_values(stream, baseline, rng)).max(axis=1) >= math.log(1 / ALPHA)).mean()
    assert alarms <= ALPHA + 2.33 * math.sqrt(
        ALPHA * (1 - ALPHA) / 2000
    )  # the simulation's own noise, one in a hundred


def test_looking_often_at_an_ordinary_test_would_not_keep_it() -> None:
    """The test of the test: a z-test at the same level, looked at after every row, cries wolf far more often."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(2000, 250))
    z = np.cumsum(values, axis=1) / np.sqrt(np.arange(1, 251))
    assert (np.abs(z[:, 10:]).max(axis=1) > 1.96).mean() > 4 * ALPHA


def test_power_on_shifts_and_on_late_ones() -> None:
    """After a baseline of 300: yes from 40 to 70 %, refusals from 1 to 15 %, longer prompts; and after 500 rows."""
    rng = np.random.default_rng(4)
    bar = math.log(10 / ALPHA)  # ten monitors share alpha

    def found(before: FloatArray, after: FloatArray) -> float:
        both = np.concatenate([before, after], axis=1)
        return float((paths(p_values(both, 300, rng)).max(axis=1) >= bar).mean())

    calm = (rng.random((100, 300)) < 0.4).astype(float)
    assert found(calm, (rng.random((100, 200)) < 0.7).astype(float)) > 0.9
    rare = (rng.random((100, 300)) < 0.01).astype(float)
    assert found(rare, (rng.random((100, 300)) < 0.15).astype(float)) > 0.8
    assert found(rng.normal(size=(100, 300)), rng.normal(0.7, 1, size=(100, 150))) > 0.9
    late = rng.normal(size=(100, 800))
    assert found(late, rng.normal(0.7, 1, size=(100, 150))) > 0.9


def test_confidence_sequences_hold_the_share_at_every_row_at_once() -> None:
    rng = np.random.default_rng(5)
    missed = 0
    for truth in (0.02, 0.4):
        for _ in range(100):
            share, outside = Share(), False
            for value in rng.random(300) < truth:
                share.add(float(value), ALPHA)
                low, high = share.interval(ALPHA) or (0, 1)
                outside |= not low <= truth <= high
            missed += outside
    assert missed <= 2 * 100 * ALPHA + 8
    assert high - low < 0.25  # 300 rows say something


def test_a_confidence_sequence_by_hand() -> None:
    """The first value: mean 1/2 and variance 1/4 before it; the bet is cut to 1/2."""
    share = Share()
    assert share.interval(ALPHA) is None
    share.add(1.0, ALPHA)
    assert share.weights == 0.5 and share.weighted == 0.5
    assert share.spread == pytest.approx(0.25 * (math.log(2) - 0.5))
    assert share.interval(ALPHA) == (0.0, 1.0)
