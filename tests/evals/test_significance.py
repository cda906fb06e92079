"""Holm and McNemar by hand, power against simulation, robust errors against the bootstrap and closed forms."""

import math

import numpy as np
import pytest
from scipy import stats

from sightline.evals.cluster_sums import sum_scores
from sightline.evals.crossed import Spread, estimate_parts, half_width
from sightline.evals.metrics import AnyMetric, Derived, Metric, average, count, mean
from sightline.evals.significance import (
    exact_binomial,
    holm,
    images_needed,
    images_needed_over_seeds,
    mcnemar,
    power,
    power_over_seeds,
    seeds_needed,
    smallest_effect,
    smallest_effect_over_seeds,
)
from sightline.evals.statistics import compare, estimate
from sightline.records.rows import Score
from tests.evals.robust import robust_difference_errors, robust_estimate


def test_holm_by_hand() -> None:
    """Of m = 4: 0.01 * 4, 0.02 * 3, then 0.03 * 2 (no smaller than before), then 0.5."""
    assert holm([0.03, 0.01, None, 0.5, 0.02]) == pytest.approx([0.06, 0.04, None, 0.5, 0.06])
    assert holm([0.4, 0.3]) == pytest.approx([0.6, 0.6])
    assert holm([None]) == [None]


def items(values: str, groups: tuple[str, ...] = ()) -> list[Score]:
    known = {"1": 1.0, "0": 0.0, "-": None, "h": 0.5}
    return [
        Score(sample_id=str(n), cluster="", groups=groups, values={"right": known[c]}) for n, c in enumerate(values)
    ]


RIGHT = mean("right", "Right", higher_is_better=True)


def test_mcnemar_by_hand() -> None:
    """One item only before, five only after: 2 * (1 + 6) / 2 ** 6 = 0.21875."""
    result = mcnemar(items("1000001-11"), items("011111110-"), RIGHT)
    assert result is not None and (result.only_before, result.only_after) == (2, 5)
    assert result.p == pytest.approx(2 * (1 + 7 + 21) / 2**7)
    assert exact_binomial(1, 5) == pytest.approx(0.21875)
    assert exact_binomial(0, 0) == 1.0
    assert mcnemar(items("1h"), items("11"), RIGHT) is None
    assert mcnemar(items("1"), items("1"), count("right", "Right")) is None
    of_group = mean("right", "Right", higher_is_better=True, group="a")
    found = mcnemar(items("10", ("b",)), items("01", ("b",)), of_group)
    assert found is not None and (found.only_before, found.only_after, found.p) == (0, 0, 1.0)


def test_power_is_the_share_of_simulated_tests_that_find_it() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(0.5, 1.0, size=(20_000, 25))
    found = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert power(0.5, 1 / 5, 25) == pytest.approx(found, abs=0.01)
    assert power(0.0, 0.2, 25) == pytest.approx(0.05, abs=2e-5)
    assert power(-0.5, 0.2, 25) == power(0.5, 0.2, 25)


def test_the_smallest_effect_is_found_with_its_power_and_no_fewer_images_do() -> None:
    assert smallest_effect(1.0, 10_000) == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8), abs=1e-3)
    effect = smallest_effect(0.02, 40)
    assert power(effect, 0.02, 40) == pytest.approx(0.8, abs=1e-9)
    assert images_needed(effect, 0.02, 40) == 40
    needed = images_needed(effect / 2, 0.02, 40)
    assert needed is not None and 150 < needed <= 160  # four times, less what the degrees of freedom give
    assert images_needed(0.0, 0.02, 40) is None and images_needed(1e-9, 1.0, 40) is None
    assert smallest_effect(0.0, 40) == 0.0 and math.isnan(smallest_effect(0.1, 1))


@pytest.mark.parametrize(("seeds", "between"), [(3, 0.0), (3, 0.02), (5, 0.005)])
def test_power_over_seeds_is_the_share_of_simulated_studies_that_find_it(seeds: int, between: float) -> None:
    """100 images; half of the image variance common to the seeds, whose own variance is `between`."""
    rest = 0.5 / (seeds * 100)
    spread = Spread(
        images=100,
        seeds=seeds,
        between_images=0.5 / 100 + rest,
        between_seeds=between / seeds + rest,
        rest=rest,
    )
    effect = smallest_effect_over_seeds(spread)
    assert power_over_seeds(effect, spread) == pytest.approx(0.8, abs=1e-9)
    rng = np.random.default_rng(seeds)
    scores = (
        effect
        + rng.normal(0, math.sqrt(0.5), (4000, 1, 100))
        + rng.normal(0, math.sqrt(0.5), (4000, seeds, 100))
        + rng.normal(0, math.sqrt(between), (4000, seeds, 1))
    )
    values = scores.mean(axis=-1)
    parts = estimate_parts(values, (scores - values[..., None]) / 100)
    assert np.mean(np.abs(values.mean(axis=-1)) > half_width(parts)) == pytest.approx(0.8, abs=0.02)


def test_what_an_effect_takes_in_images_and_in_seeds() -> None:
    """Seeds that differ bound what images can show, and images what seeds can."""
    spread = Spread(images=150, seeds=3, between_images=0.004, between_seeds=0.003, rest=0.001)
    effect = smallest_effect_over_seeds(spread)
    assert images_needed_over_seeds(effect, spread) == 150 and seeds_needed(effect, spread) == 3
    assert images_needed_over_seeds(effect / 2, spread) is None  # not with three seeds
    assert seeds_needed(effect / 2, spread) is not None
    alike = spread.model_copy(update={"between_seeds": 0.0})
    more = images_needed_over_seeds(effect / 2, alike)
    fewer = images_needed_over_seeds(effect / 2, alike, seeds=10)
    assert more is not None and fewer is not None and fewer < more
    assert seeds_needed(0.01, spread) is None  # 150 images have an error of 0.055 for any number of seeds
    assert images_needed_over_seeds(0.0, spread) is None and seeds_needed(0.0, spread) is None


def worlds(seed: int, clusters: int = 60, skill: float = 0.0) -> list[Score]:
    rng = np.random.default_rng([seed, 1])
    easy = np.random.default_rng(9).normal(size=clusters)
    rows = []
    for cluster in range(clusters):
        for item in range(4):
            truth = item % 2 == 0
            predicted = truth ^ bool(rng.random() > 1 / (1 + math.exp(-easy[cluster] - skill)))
            cells = {"tp": predicted and truth, "fp": predicted and not truth, "fn": not predicted and truth}
            values: dict[str, float | None] = {name: float(value) for name, value in cells.items()}
            group = ("early",) if cluster < clusters // 2 else ("late",)
            rows.append(Score(sample_id=f"{cluster}/{item}", cluster=f"c{cluster}", groups=group, values=values))
    return rows


def f1(group: str = "") -> Metric:
    return Metric(
        label="F1", numerator={"tp": 2}, denominator={"tp": 2, "fp": 1, "fn": 1}, higher_is_better=True, group=group
    )


METRICS: dict[str, AnyMetric] = {
    "f1": f1(),
    "early": f1("early"),
    "late": f1("late"),
    "mean": average(("early", "late"), "Mean", higher_is_better=True),
    "tp": count("tp", "tp"),
    "precision": Metric(
        label="P", numerator={"tp": 1}, denominator={"tp": 1, "fp": 1}, epsilon=0.001, higher_is_better=True
    ),
    "recall": Metric(label="R", numerator={"tp": 1}, denominator={"tp": 1, "fn": 1}, higher_is_better=True),
    "harmonic": Derived(
        label="H", kind="harmonic", parts={"precision": 1, "recall": 1}, epsilon=1e-4, higher_is_better=True
    ),
    # Weights that keep the parts apart: where they meet, neither figure is smooth.
    "best": Derived(label="B", kind="greatest", parts={"precision": 0.5, "recall": 1}, higher_is_better=True),
    "spread": Derived(
        label="S", kind="spread", parts={"precision": 1, "recall": 0.3, "harmonic": -1}, higher_is_better=False
    ),
}


def test_linearized_errors_are_the_bootstraps() -> None:
    rows = worlds(0)
    robust, drawn = robust_estimate(rows, METRICS), estimate(rows, METRICS)
    for name in METRICS:
        assert robust[name].value == pytest.approx(drawn[name].value)
        assert robust[name].stderr == pytest.approx(drawn[name].stderr, rel=0.07), name
        assert (robust[name].n, robust[name].unscored) == (drawn[name].n, drawn[name].unscored)


def test_a_mean_of_clusters_of_one_size_is_the_textbook_case() -> None:
    values = np.random.default_rng(2).normal(size=(30, 3))
    rows = [
        Score(sample_id=f"{c}/{i}", cluster=str(c), values={"v": float(values[c, i])})
        for c in range(30)
        for i in range(3)
    ]
    estimate = robust_estimate(rows, {"m": mean("v", "V", higher_is_better=None, unit="number")})["m"]
    assert estimate.stderr == pytest.approx(np.std(values.mean(axis=1), ddof=1) / math.sqrt(30), rel=1e-12)


def test_paired_robust_errors_are_the_bootstraps() -> None:
    before, after = worlds(0), worlds(1, skill=0.4)
    errors = robust_difference_errors(*sum_scores([before, after], METRICS))
    drawn = compare([(before, after)], METRICS)
    for error, comparison in zip(errors, drawn.values(), strict=True):
        assert error == pytest.approx(comparison.difference.stderr, rel=0.07)


def test_p_agrees_with_the_interval_and_with_students_test() -> None:
    before, after = worlds(0), worlds(1, skill=0.7)
    comparison = compare([(before, after)], METRICS)["f1"]
    assert (
        comparison.p is not None
        and comparison.difference.value is not None
        and comparison.difference.stderr is not None
    )
    student = 2 * stats.t.sf(abs(comparison.difference.value / comparison.difference.stderr), comparison.clusters - 1)
    assert comparison.p == pytest.approx(student, rel=0.35, abs=0.004)
    assert comparison.difference.ci95 is not None
    assert (comparison.p < 0.05) == (comparison.difference.ci95[0] > 0 or comparison.difference.ci95[1] < 0)
    assert compare([(before, before)], METRICS)["f1"].p == 1.0


def test_p_is_even_where_nothing_differs() -> None:
    """200 pairs of models that are alike: 5 % of them are below 5 %, half of them below a half."""
    found = [compare([(worlds(s), worlds(1000 + s))], {"f1": f1()}, resamples=400)["f1"].p or 0.0 for s in range(200)]
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.09
    assert 0.4 <= np.mean(np.array(found) < 0.5) <= 0.6
