"""The bootstrap against closed forms, simulation and a slow reference; what it must return exactly, exactly."""

import numpy as np
import pytest

from sightline.errors import InputError
from sightline.evals.benchmark import Metric, mean
from sightline.evals.statistics import compare, estimate
from sightline.records.rows import Score

SHARE = mean("hit", "Hits", higher_is_better=True)
NUMBER = mean("hit", "Hits", higher_is_better=True, unit="number")
F1 = Metric(
    label="F1", numerator={"tp": 2}, denominator={"tp": 2, "fp": 1, "fn": 1}, higher_is_better=True, primary=True
)


def scores(values: list[float | None], clusters: list[str] | None = None) -> list[Score]:
    names = clusters or [f"image-{i}" for i in range(len(values))]
    return [
        Score(sample_id=f"s{i}", cluster=cluster, values={"hit": value})
        for i, (value, cluster) in enumerate(zip(values, names, strict=True))
    ]


def test_mean_agrees_with_the_closed_form() -> None:
    values = list(np.random.default_rng(3).normal(2.0, 1.5, size=400))
    result = estimate(scores(values), {"m": NUMBER}, seed=1)["m"]
    assert result.value == pytest.approx(np.mean(values), abs=1e-12)
    assert result.stderr == pytest.approx(np.std(values) / np.sqrt(400), rel=0.03)
    assert result.ci95 is not None
    half = 1.96 * np.std(values) / np.sqrt(400)
    assert result.ci95[0] == pytest.approx(np.mean(values) - half, abs=0.12 * half)
    assert result.ci95[1] == pytest.approx(np.mean(values) + half, abs=0.12 * half)
    assert (result.n, result.unscored) == (400, 0)


def test_ratio_agrees_with_a_slow_bootstrap() -> None:
    rng = np.random.default_rng(5)
    cells = rng.integers(0, 3, size=(60, 3)).astype(float)
    rows = [
        Score(sample_id=str(i), cluster=f"c{i // 3}", values=dict(zip(("tp", "fp", "fn"), cell, strict=True)))
        for i, cell in enumerate(cells)
    ]
    result = estimate(rows, {"f1": F1}, resamples=4000)["f1"]
    tp, fp, fn = cells.sum(axis=0)
    assert result.value == pytest.approx(2 * tp / (2 * tp + fp + fn), abs=1e-12)
    draws = []
    for _ in range(4000):
        tp, fp, fn = np.concatenate([cells[3 * c : 3 * c + 3] for c in rng.integers(20, size=20)]).sum(axis=0)
        draws.append(2 * tp / (2 * tp + fp + fn))
    assert result.stderr == pytest.approx(np.std(draws) * np.sqrt(20 / 19), rel=0.04)
    # 20 clusters: Student's 2.093 * sqrt(20 / 19) = 2.147 normal deviations, so 1.59 % beyond each end.
    assert result.ci95 == pytest.approx(np.percentile(draws, [1.59, 98.41]), abs=0.15 * float(np.std(draws)))


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """300 worlds of 80 images with 4 correlated questions each; nominal 95 %, simulation error about 1.3 points."""
    rng = np.random.default_rng(0)
    covered = 0
    for world in range(300):
        skill = rng.beta(6, 2, size=80)
        hits = rng.random((80, 4)) < skill[:, None]
        rows = scores([float(h) for h in hits.ravel()], [f"i{k // 4}" for k in range(320)])
        interval = estimate(rows, {"m": SHARE}, resamples=600, seed=world)["m"].ci95
        assert interval is not None
        covered += interval[0] <= 0.75 <= interval[1]
    assert 0.91 <= covered / 300 <= 0.985


def test_questions_on_one_image_widen_the_interval() -> None:
    answers = [float(i % 2) for i in range(100) for _ in range(4)]
    apart = estimate(scores(list(answers)), {"m": SHARE})["m"]
    together = estimate(scores(list(answers), [f"i{k // 4}" for k in range(400)]), {"m": SHARE})["m"]
    assert apart.stderr is not None and together.stderr is not None
    assert together.stderr == pytest.approx(2 * apart.stderr, rel=0.05)  # sqrt(4) for four equal answers an image


def test_unscored_is_left_out_and_counted_never_zero() -> None:
    result = estimate(scores([1.0, None, 1.0, 0.0, None]), {"m": SHARE})["m"]
    assert result.value == pytest.approx(2 / 3)
    assert (result.n, result.unscored) == (3, 2)


def test_what_cannot_be_had_is_none() -> None:
    nothing = estimate([], {"m": SHARE})["m"]
    assert (nothing.value, nothing.stderr, nothing.ci95, nothing.n) == (None, None, None, 0)
    one_image = estimate(scores([1.0, 0.0], ["a", "a"]), {"m": SHARE})["m"]
    assert (one_image.value, one_image.ci95) == (0.5, None)
    undefined = [Score(sample_id=str(i), cluster="", values={"tp": 0, "fp": 0, "fn": 0}) for i in range(5)]
    assert estimate(undefined, {"f1": F1})["f1"].value is None


def test_mostly_undefined_resamples_give_no_interval() -> None:
    rows = [Score(sample_id=str(i), cluster="", values={"tp": float(i == 0), "fp": 0, "fn": 0}) for i in range(20)]
    result = estimate(rows, {"f1": F1})["f1"]
    assert (result.value, result.ci95) == (1.0, None)  # (19 / 20) ** 20 = 36 % of the resamples are 0 / 0


def test_a_share_of_zero_gets_the_exact_bound() -> None:
    result = estimate(scores([0.0] * 50), {"m": SHARE})["m"]
    assert result.ci95 == pytest.approx((0.0, 1 - 0.025 ** (1 / 50)))
    assert estimate(scores([1.0] * 50), {"m": SHARE})["m"].ci95 == pytest.approx((0.025 ** (1 / 50), 1.0))


def test_same_seed_same_bytes_other_seed_other_interval() -> None:
    rows = scores(list(np.random.default_rng(1).random(200)))
    assert estimate(rows, {"m": NUMBER}, seed=7) == estimate(rows, {"m": NUMBER}, seed=7)
    assert estimate(rows, {"m": NUMBER}, seed=7) != estimate(rows, {"m": NUMBER}, seed=8)


def test_chunks_do_not_change_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = scores(list(np.random.default_rng(1).random(30)))
    whole = estimate(rows, {"m": NUMBER}, resamples=1000)
    monkeypatch.setattr("sightline.evals.statistics._COUNTS_AT_A_TIME", 30 * 7)
    parts = estimate(rows, {"m": NUMBER}, resamples=1000)
    assert (parts["m"].value, parts["m"].stderr) == pytest.approx((whole["m"].value, whole["m"].stderr))
    assert parts["m"].ci95 == pytest.approx(whole["m"].ci95)


def test_identical_models_differ_by_exactly_nothing() -> None:
    rows = scores(list(np.random.default_rng(1).random(101)), [f"i{k // 3}" for k in range(101)])
    difference = compare([(rows, rows)], {"m": NUMBER})["m"].difference
    assert (difference.value, difference.stderr, difference.ci95) == (0.0, 0.0, (0.0, 0.0))


def test_pairing_removes_what_both_models_share() -> None:
    rng = np.random.default_rng(2)
    hard = rng.random(300)
    before, after = scores(list(hard)), scores(list(hard + 0.01 + rng.normal(0, 0.01, 300)))
    comparison = compare([(before, after)], {"m": NUMBER})["m"]
    assert comparison.difference.value == pytest.approx(0.01, abs=0.002)
    assert comparison.before.stderr is not None and comparison.difference.stderr is not None
    assert comparison.difference.stderr < comparison.before.stderr / 20
    assert comparison.difference.ci95 is not None and comparison.difference.ci95[0] > 0


def test_difference_has_the_sign_of_after_minus_before_and_the_rows_add_up() -> None:
    before, after = scores([1.0, 1.0, 0.0, None]), scores([0.0, 1.0, 0.0, 1.0])
    comparison = compare([(before, after)], {"m": SHARE})["m"]
    assert comparison.before.value == pytest.approx(2 / 3)
    assert comparison.after.value == pytest.approx(1 / 3)  # the fourth item has no counterpart
    assert comparison.difference.value == pytest.approx(-1 / 3)
    assert (comparison.difference.n, comparison.difference.unscored, comparison.clusters) == (3, 1, 4)


def test_one_pair_given_three_times_is_one_pair() -> None:
    rng = np.random.default_rng(4)
    pair = scores(list(rng.random(100))), scores(list(rng.random(100)))
    once, thrice = compare([pair], {"m": NUMBER})["m"], compare([pair] * 3, {"m": NUMBER})["m"]
    assert thrice.difference.value == pytest.approx(once.difference.value)
    assert thrice.difference.ci95 == pytest.approx(once.difference.ci95)


def test_seeds_add_their_variance() -> None:
    """The same images, three seeds apart by known shifts: variance = shift variance / 3 (images add almost none)."""
    rng = np.random.default_rng(4)
    images = rng.random(200)
    shifts = np.array([-0.3, 0.0, 0.6])
    pairs = [(scores(list(images)), scores(list(images + shift))) for shift in shifts]
    comparison = compare(pairs, {"m": NUMBER}, resamples=40_000)["m"]
    assert comparison.difference.value == pytest.approx(0.1)
    assert comparison.by_seed == pytest.approx(tuple(shifts))
    assert comparison.difference.stderr == pytest.approx(np.std(shifts, ddof=1) / np.sqrt(3), rel=0.02)
    assert comparison.before.stderr == pytest.approx(
        np.std(images) / np.sqrt(200), rel=0.02
    )  # one base, no seed spread


def test_bad_scores_are_refused_by_name() -> None:
    twice = scores([1.0]) + scores([0.0])
    with pytest.raises(InputError, match="'s0' has more than one score"):
        estimate(twice, {"m": SHARE})
    with pytest.raises(InputError, match=r"'s0'.*'missed'"):
        estimate(scores([1.0]), {"m": mean("missed", "Missed", higher_is_better=False)})
    with pytest.raises(InputError, match="nothing to compare"):
        compare([], {"m": SHARE})
