"""Images and seeds crossed: mean squares by hand, p and interval in step, coverage and false stars by simulation."""

import numpy as np
import pytest
from scipy import stats

from sightline.evals.cluster_sums import FloatArray
from sightline.evals.crossed import ALPHA, Parts, Spread, estimate_parts, estimate_spread, half_width, p_values
from sightline.evals.metrics import Metric, count, mean
from sightline.evals.statistics import Comparison, compare
from sightline.records.rows import Score

#: The level of a star among 39 differences without any effect (Holm's first step).
STAR = 0.05 / 39


def influences_of(scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean of every seed and its influences, of scores [..., seed, image]."""
    values = scores.mean(axis=-1)
    return values, (scores - values[..., None]) / scores.shape[-1]


def test_mean_squares_by_hand() -> None:
    """Two seeds, three images. Row means 2 and 4, image means 1.5, 2.5, 5; rests plus and minus 0.5, 0.5, 1.

    MS(images) = 2 * (1.5^2 + 0.5^2 + 2^2) / 2 = 6.5, MS(seeds) = 3 * (1 + 1) / 1 = 6, MS(rest) = 3 / 2 = 1.5.
    """
    scores = np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 7.0]])
    spread = estimate_spread(*influences_of(scores))
    assert spread.between_images == pytest.approx(6.5 / 6)
    assert spread.between_seeds == pytest.approx(6 / 6)
    assert spread.rest == pytest.approx(1.5 / 6)
    assert spread.variance == pytest.approx((6.5 + 6 - 1.5) / 6)
    assert spread.freedom == pytest.approx(min(2.0, 11**2 / (6.5**2 / 2 + 6**2 / 1 + 1.5**2 / 2)))
    two_way = np.sqrt(spread.variance) * stats.t.ppf(0.975, spread.freedom)
    assert spread.half_width() == pytest.approx(max(two_way, 1.0 * stats.t.ppf(0.975, 1)))


@pytest.mark.parametrize(
    ("images", "seeds", "rest", "variance", "freedom"),
    [
        (4.0, 1.0, 2.0, 4.0, 99.0),  # no seed component: the images' mean square alone
        (1.0, 4.0, 2.0, 4.0, 2.0),  # no image component: the seeds' mean square alone
        (1.0, 1.0, 2.0, 2.0, 99.0),  # neither: the rest, whose 198 degrees are more than images give
        (0.0, 0.0, 0.0, 0.0, 99.0),
    ],
)
def test_a_component_is_never_negative(
    images: float, seeds: float, rest: float, variance: float, freedom: float
) -> None:
    spread = Spread(images=100, seeds=3, between_images=images, between_seeds=seeds, rest=rest)
    assert (spread.variance, spread.freedom) == pytest.approx((variance, freedom))


def test_where_seeds_decide_it_is_students_test_of_the_seeds() -> None:
    shifts = np.array([0.1, 0.2, 0.35])
    spread = estimate_spread(*influences_of(np.repeat(shifts[:, None], 50, axis=1)))
    expected = stats.ttest_1samp(shifts, 0.0)
    assert spread.p_value(float(shifts.mean())) == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert spread.half_width() == pytest.approx((high - low) / 2)


def test_p_is_below_a_level_exactly_where_the_interval_excludes() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0.15, 1.0, (4000, 3, 20)) + rng.normal(0, 0.2, (4000, 3, 1)) + rng.normal(0, 0.5, (4000, 1, 20))
    values, pulls = influences_of(scores)
    parts, means = estimate_parts(values, pulls), values.mean(axis=-1)
    for alpha in (0.001, ALPHA, 0.5):
        assert np.array_equal(p_values(parts, means) < alpha, np.abs(means) > half_width(parts, alpha))


def test_another_design_keeps_the_components() -> None:
    """An image's own variance 3, a seed's 0.2, the rest 5: each is divided by what averages it."""
    spread = Spread(images=50, seeds=4, between_images=3 / 50 + 5 / 200, between_seeds=0.2 / 4 + 5 / 200, rest=5 / 200)
    other = spread.with_design(300, 6)
    assert other.variance == pytest.approx(3 / 300 + 0.2 / 6 + 5 / 1800)
    assert spread.with_design(50, 4).variance == pytest.approx(spread.variance)


def simulated(
    rng: np.random.Generator, studies: int, seeds: int, ratio: float, shared: float
) -> tuple[Parts, FloatArray, float]:
    """Studies of no effect on 150 images: what is measured, the means, and their true standard error.

    `shared` of the image variance is common to the seeds, whose own deviation is `ratio` image-level errors.
    """
    images = 150
    error = np.sqrt((shared + (1 - shared) / seeds) / images)
    scores = (
        rng.normal(0, np.sqrt(shared), (studies, 1, images))
        + rng.normal(0, np.sqrt(1 - shared), (studies, seeds, images))
        + rng.normal(0, ratio * error, (studies, seeds, 1))
    )
    values, pulls = influences_of(scores)
    return estimate_parts(values, pulls), values.mean(axis=-1), float(error * np.sqrt(1 + ratio**2 / seeds))


def rates(seeds: int, ratio: float, studies: int, shared: float = 0.5) -> tuple[float, float, float]:
    """Coverage of the 95 % interval, its mean width over that of a known variance, and the rate of false stars."""
    rng = np.random.default_rng([seeds, int(ratio), int(10 * shared)])
    covered = width = stars = 0.0
    for start in range(0, studies, 1000):
        parts, means, error = simulated(rng, min(1000, studies - start), seeds, ratio, shared)
        half = half_width(parts)
        covered += float(np.sum(np.abs(means) <= half))
        width += float(np.sum(half)) / (stats.norm.ppf(0.975) * error)
        stars += float(np.sum(p_values(parts, means) < STAR))
    return covered / studies, width / studies, stars / studies


@pytest.mark.parametrize(("seeds", "ratio"), [(3, 4), (3, 8), (5, 0)])
def test_intervals_cover_over_seeds(seeds: int, ratio: float) -> None:
    """3,000 studies, error 0.4 points; a bootstrap of three seeds covers 87 and 84 % at 4 and 8."""
    covered, _, stars = rates(seeds, ratio, 3000)
    assert 0.93 <= covered <= 0.97, covered
    assert stars <= 4 * STAR, stars


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.5, 0.9])
@pytest.mark.parametrize("ratio", [0, 1, 2, 4, 8])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_table_of_the_docs_over_seeds(seeds: int, ratio: float, shared: float) -> None:
    """20,000 studies: coverage is known to 0.15 points, the rate of false stars to 0.00025."""
    covered, width, stars = rates(seeds, ratio, 20_000, shared)
    print(f"{seeds} seeds, {ratio}x, {shared:g} shared: {100 * covered:.1f} %, width {width:.2f}, stars {stars:.4f}")
    assert 0.93 <= covered <= 0.97, covered
    assert stars <= STAR + 0.001, stars
    ideal = stats.t.ppf(0.975, seeds - 1) / stats.norm.ppf(0.975)
    assert width <= (1.25 if ratio == 0 else ideal), "no wider than Student's of the seeds alone"


F1 = Metric(label="F1", numerator={"tp": 2}, denominator={"tp": 2, "fp": 1, "fn": 1}, higher_is_better=True)
METRICS = {"f1": F1, "tp": count("tp", "tp"), "right": mean("right", "Right", higher_is_better=True)}


def answers(seed: int, skill: float, images: int = 60) -> list[Score]:
    """Four yes/no questions an image; how hard an image is, is the same for every seed."""
    rng, hard = np.random.default_rng([seed, 1]), np.random.default_rng(9).normal(size=images)
    rows = []
    for image in range(images):
        for item in range(4):
            truth = item % 2 == 0
            predicted = truth ^ bool(rng.random() > 1 / (1 + np.exp(-hard[image] - skill)))
            cells = {
                "tp": predicted and truth,
                "fp": predicted and not truth,
                "fn": not predicted and truth,
                "right": predicted == truth,
            }
            values = {name: float(value) for name, value in cells.items()}
            rows.append(Score(sample_id=f"{image}/{item}", cluster=f"c{image}", values=dict(values)))
    return rows


def over_seeds(skills: tuple[float, ...], start: int = 10) -> dict[str, Comparison]:
    base = answers(0, 0.0)
    return compare([(base, answers(start + n, skill)) for n, skill in enumerate(skills)], METRICS, resamples=300)


def test_one_seed_keeps_its_numbers() -> None:
    """The estimates of the bootstrap, to the last digit."""
    comparison = compare([(answers(0, 0.0), answers(10, 0.7))], {"f1": F1})["f1"]
    assert comparison.difference.value == pytest.approx(0.1314411395056556, rel=1e-12)
    assert comparison.difference.stderr == pytest.approx(0.04663575244512438, rel=1e-9)
    assert comparison.difference.ci95 == pytest.approx((0.0374923188810123, 0.2234129932553971), rel=1e-9)
    assert comparison.p == pytest.approx(0.009430401103321759, rel=1e-9)
    assert comparison.spread is None


def test_a_run_that_stands_for_every_seed_has_the_interval_of_one() -> None:
    once, thrice = over_seeds((0.7,))["f1"], over_seeds((0.7, 0.7, 0.7))["f1"]
    assert once.before == thrice.before
    assert once.spread is None and thrice.spread is not None and thrice.spread.seeds == 3


def test_interval_and_p_of_ratios_are_of_one_test() -> None:
    for skills in ((0.3, 0.4, 0.5), (0.0, 0.5, 1.5), (-1.0, 0.5, 2.0), (0.1, 0.2)):
        for comparison in over_seeds(skills).values():
            interval = comparison.difference.ci95
            assert comparison.p is not None and interval is not None and comparison.difference.value is not None
            assert (comparison.p < 0.05) == (interval[0] > 0 or interval[1] < 0)
            for border in interval:
                if abs(border) < 1:  # where a share's interval is not cut off
                    assert comparison.p_at(border) == pytest.approx(0.05)


def test_a_mean_over_seeds_is_the_textbook_two_way_layout() -> None:
    comparison = over_seeds((0.3, 0.6, 0.9))["right"]
    base = np.array([row.values["right"] for row in answers(0, 0.0)], dtype=float)
    tuned = np.array(
        [[row.values["right"] for row in answers(10 + n, s)] for n, s in enumerate((0.3, 0.6, 0.9))], float
    )
    by_image = (tuned - base).reshape(3, 60, 4).mean(axis=2)
    rows, columns, whole = by_image.mean(axis=1), by_image.mean(axis=0), by_image.mean()
    of_images = 3 * np.sum((columns - whole) ** 2) / 59
    of_seeds = 60 * np.sum((rows - whole) ** 2) / 2
    of_rest = np.sum((by_image - rows[:, None] - columns + whole) ** 2) / (59 * 2)
    assert comparison.spread is not None
    found = (comparison.spread.between_images, comparison.spread.between_seeds, comparison.spread.rest)
    assert found == pytest.approx((of_images / 180, of_seeds / 180, of_rest / 180))
    assert comparison.difference.stderr == pytest.approx(np.sqrt((of_images + max(0, of_seeds - of_rest)) / 180))


def test_a_share_stays_a_share() -> None:
    """Two seeds far apart have Student's 12.7, and no share above 100 %."""
    comparison = over_seeds((-3.0, 3.0))["f1"]
    assert comparison.after.ci95 == (0.0, 1.0) and comparison.difference.ci95 == (-1.0, 1.0)
    assert over_seeds((-3.0, 3.0))["tp"].after.ci95[1] > 1.0  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_differences_of_ratios_cover_over_seeds(shift: float) -> None:
    """600 studies of F1 with three seeds, error 0.9 points; the truth is the mean of many."""
    rng = np.random.default_rng(int(10 * shift))

    def study(images: int) -> tuple[float, tuple[float, float]]:
        hard = rng.normal(size=(images, 1))
        skills = [0.0, *(0.5 + rng.normal(0, shift, 3))]
        runs = [rng.random((images, 4)) < 1 / (1 + np.exp(-hard - skill)) for skill in skills]
        rows = []
        for right in runs:
            tp, fp, fn = right[:, ::2], ~right[:, 1::2], ~right[:, ::2]
            cells = zip(tp.sum(axis=1), fp.sum(axis=1), fn.sum(axis=1), strict=True)
            rows.append(
                [
                    Score(sample_id=str(i), cluster="", values={"tp": float(a), "fp": float(b), "fn": float(c)})
                    for i, (a, b, c) in enumerate(cells)
                ]
            )
        difference = compare([(rows[0], after) for after in rows[1:]], {"f1": F1}, resamples=100)["f1"].difference
        assert difference.value is not None and difference.ci95 is not None
        return difference.value, difference.ci95

    found = [study(80) for _ in range(600)]
    truth = float(np.mean([value for value, _ in found]))
    covered = np.mean([low <= truth <= high for _, (low, high) in found])
    assert 0.93 <= covered <= 0.985, covered
