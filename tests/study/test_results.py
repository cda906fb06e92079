"""Verdicts follow intervals mechanically; comparisons refuse what cannot be compared."""

import json
from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.evals.comparison import Verdict, verdict
from sightline.evals.directory import read_evaluation
from sightline.records.rows import Estimate
from sightline.report.comparison import compare_evaluations
from tests.study.directories import evaluation


def difference(low: float, high: float) -> Estimate:
    return Estimate(value=(low + high) / 2, stderr=0.1, ci95=(low, high), n=10)


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "word"),
    [
        (0.1, 0.3, True, "better"),
        (0.1, 0.3, False, "worse"),
        (-0.3, -0.1, True, "worse"),
        (-0.3, -0.1, False, "better"),
        (0.1, 0.3, None, "higher"),
        (-0.3, -0.1, None, "lower"),
        (-0.1, 0.3, True, "within noise"),
        (0.0, 0.3, True, "within noise"),  # an interval that ends at 0 holds 0
        (-0.3, 0.0, False, "within noise"),
        (0.0, 0.0, None, "within noise"),
    ],
)
def test_verdict_follows_the_interval(low: float, high: float, higher_is_better: bool | None, word: Verdict) -> None:
    assert verdict(difference(low, high), higher_is_better) == word


def test_no_interval_no_verdict() -> None:
    assert verdict(Estimate(value=0.9, stderr=None, ci95=None, n=1), True) == "not estimable"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("base")
    return evaluation(root / "eval", root / "pictures", {"shapes": 0.5, "shapes-counter": 0.7}, count=50)


def test_a_model_against_itself_is_all_within_noise(base: Path) -> None:
    evaluated = read_evaluation(base)
    results = compare_evaluations(evaluated, [evaluated], resamples=300, seed=0)
    numbers = [metric for benchmark in results.benchmarks.values() for metric in benchmark.metrics.values()]
    assert results.verdicts == {"within noise": len(numbers)}
    assert all(metric.difference.value == 0 and metric.difference.ci95 == (0, 0) for metric in numbers)


def test_a_better_model_is_called_better_and_quoted(base: Path, tmp_path: Path) -> None:
    wrong = {"shapes": 0.05, "shapes-counter": 0.1}
    after = read_evaluation(evaluation(tmp_path / "eval", tmp_path / "pictures", wrong, count=50, seed=1))
    before = read_evaluation(base)
    results = compare_evaluations(before, [after], resamples=500, seed=0)
    metric = results.benchmarks["shapes"].metrics["hallucinating"]
    assert (metric.verdict, metric.base.n, metric.images, metric.by_seed) == (
        "better",
        50,
        50,
        (metric.difference.value,),
    )
    assert metric.base.value == before["shapes"].estimates["hallucinating"].value
    assert metric.difference.value == pytest.approx((metric.aligned.value or 0) - (metric.base.value or 0))
    assert results.headline.startswith("Descriptions with an absent shape (shapes) went from ")
    assert results.headline.endswith(", over 50 images: better.")
    counter = results.benchmarks["shapes-counter"]
    assert (counter.family, counter.condition) == ("shapes", "counter-prior")


def test_several_seeds_are_averaged(base: Path, tmp_path: Path) -> None:
    runs = [
        read_evaluation(evaluation(tmp_path / str(seed), tmp_path / "p", {"shapes": share}, count=50, seed=seed))
        for seed, share in enumerate((0.1, 0.2, 0.3), 1)
    ]
    results = compare_evaluations(read_evaluation(base), runs, resamples=300, seed=0)
    metric = results.benchmarks["shapes"].metrics["hallucinating"]
    shares = [run["shapes"].estimates["hallucinating"].value or 0 for run in runs]
    assert metric.aligned.value == pytest.approx(sum(shares) / 3)
    assert metric.by_seed == pytest.approx([share - (metric.base.value or 0) for share in shares])
    assert results.left_out == ("shapes-counter",)
    assert "and 3 training seeds" in results.headline


def test_nothing_in_common_is_refused(base: Path) -> None:
    evaluated = read_evaluation(base)
    with pytest.raises(InputError, match="no benchmark in common"):
        compare_evaluations(
            {"shapes": evaluated["shapes"]}, [{"shapes-counter": evaluated["shapes-counter"]}], resamples=9, seed=0
        )


def test_metrics_that_changed_their_meaning_are_refused(base: Path, tmp_path: Path) -> None:
    after = evaluation(tmp_path / "eval", tmp_path / "pictures", {"shapes": 0.5}, count=5)
    path = after / "shapes" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["recall"]["higher_is_better"] = False
    path.write_text(json.dumps(metrics))
    with pytest.raises(InputError, match="define their metrics differently"):
        compare_evaluations(read_evaluation(base), [read_evaluation(after)], resamples=9, seed=0)
