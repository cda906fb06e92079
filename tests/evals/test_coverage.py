"""Nominal 95 % intervals cover 93 to 97 % on clustered data of known truth: means, ratios and paired differences."""

import numpy as np
import pytest

from sightline.evals.cluster_sums import ClusterSums, CompiledMetrics, FloatArray
from sightline.evals.metrics import AnyMetric, Metric
from sightline.evals.statistics import estimate_sums
from tests.evals.robust import robust_errors

RATIO = Metric(label="", numerator={"a": 1}, denominator={"b": 1}, higher_is_better=None, unit="number")
METRICS: dict[str, AnyMetric] = {"m": RATIO}
QUESTIONS = 6


def world(rng: np.random.Generator, clusters: int, *, uneven: bool) -> FloatArray:
    """Hits and questions of each image: skills differ (Beta 6, 2), and where uneven, hard images are asked more."""
    skill = rng.beta(6, 2, size=clusters)
    questions = 1 + rng.binomial(QUESTIONS - 1, 1 - skill) if uneven else np.full(clusters, QUESTIONS)
    return np.stack([rng.binomial(questions, skill), questions], axis=1).astype(np.float64)


def truth(*, uneven: bool) -> float:
    """E[hits] / E[questions]; with s of Beta(6, 2), E[s] = 3 / 4 and E[s (1 - s)] = 6 * 2 / (8 * 9) = 1 / 6."""
    return (3 / 4 + 5 / 6) / (1 + 5 / 4) if uneven else 3 / 4


def coverage(clusters: int, worlds: int, *, uneven: bool, resamples: int = 600) -> tuple[float, float]:
    """The shares of worlds whose bootstrap and whose linearized interval hold the truth."""
    rng = np.random.default_rng([clusters, uneven])
    formulas, right, drawn, linear = CompiledMetrics(METRICS), truth(uneven=uneven), 0, 0
    for number in range(worlds):
        table = ClusterSums(world(rng, clusters, uneven=uneven)[None], {"m": clusters}, {"m": 0}, clusters)
        estimate = estimate_sums(table, formulas, resamples=resamples, seed=number)["m"]
        assert estimate.ci95 is not None and estimate.value is not None
        drawn += estimate.ci95[0] <= right <= estimate.ci95[1]
        linear += abs(estimate.value - right) <= 1.96 * float(robust_errors(table, formulas)[0, 0])
    return drawn / worlds, linear / worlds


@pytest.mark.parametrize(("clusters", "uneven"), [(40, False), (100, True)])
def test_intervals_cover(clusters: int, uneven: bool) -> None:
    """800 worlds: simulation error 0.8 points, so that 93 to 97 % is the nominal value by 2.6 of them."""
    drawn, linear = coverage(clusters, 800, uneven=uneven, resamples=400)
    assert 0.93 <= drawn <= 0.97, drawn
    assert 0.92 <= linear <= 0.975, linear


@pytest.mark.slow
@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("clusters", [20, 40, 100, 500])
def test_the_table_of_the_docs(clusters: int, uneven: bool) -> None:
    drawn, _ = coverage(clusters, 4000, uneven=uneven, resamples=1000)
    print(f"{clusters} images, {'uneven' if uneven else 'even'}: {100 * drawn:.1f} %")
    assert 0.93 <= drawn <= 0.97, drawn
