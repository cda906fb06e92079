"""Claims: the word follows the interval, the figure is the paired one of the two arms, and a wrong name is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sightline.evals.directory import BenchmarkResult
from sightline.evals.metrics import AnyMetric, Derived, Metric
from sightline.records.rows import Estimate, Score
from sightline.study.claims import ClaimSpec, judge_claim, word_of
from tests.study.test_study_plan import study

CLAIM: dict[str, Any] = {
    "says": "It helps.",
    "there": "80 -> 90",
    "arm": "dpo",
    "against": "base",
    "benchmark": "lab-vqa",
    "metric": "accuracy",
    "expect": "higher",
}


@pytest.mark.parametrize(
    ("interval", "expect", "margin", "word"),
    [
        ((0.01, 0.05), "higher", None, "confirmed"),
        ((0.01, 0.05), "lower", None, "contradicted"),
        ((-0.05, -0.01), "lower", None, "confirmed"),
        ((-0.05, -0.01), "higher", None, "contradicted"),
        ((-0.01, 0.05), "higher", None, "undecided"),
        ((0.0, 0.05), "higher", None, "undecided"),
        ((-0.01, 0.015), "same", 0.02, "confirmed"),
        ((-0.01, 0.03), "same", 0.02, "undecided"),
        ((0.01, 0.03), "same", 0.02, "undecided"),
        ((0.021, 0.03), "same", 0.02, "contradicted"),
        ((-0.05, -0.03), "same", 0.02, "contradicted"),
        (None, "higher", None, "undecided"),
    ],
)
def test_the_word_follows_the_interval(
    interval: tuple[float, float] | None, expect: str, margin: float | None, word: str
) -> None:
    assert word_of(Estimate(value=0.0, stderr=None, ci95=interval, n=4), expect, margin) == word


def evaluation(values: list[float]) -> dict[str, BenchmarkResult]:
    scores = tuple(
        Score(sample_id=str(i), cluster=str(i), values={"accuracy": value}) for i, value in enumerate(values)
    )
    metric = Metric(label="accuracy", unit="share", higher_is_better=True, numerator={"accuracy": 1.0})
    return {"lab-vqa": BenchmarkResult("lab-vqa", Path(), (), (), scores, {"accuracy": metric}, {})}


def test_the_figure_is_the_paired_difference_over_seeds() -> None:
    """Two seeds raise 10 and 20 of 40 answers from wrong to right: 25 and 50 points, 37.5 on the mean."""
    base = evaluation([0.0] * 40)
    arms = {"base": [base, base], "dpo": [evaluation([1.0] * n + [0.0] * (40 - n)) for n in (10, 20)]}
    found = judge_claim(ClaimSpec(**CLAIM), arms)
    assert found.difference is not None and found.difference.value == pytest.approx(0.375)
    assert found.word == "confirmed" and found.ours().startswith("+37.5")
    assert judge_claim(ClaimSpec(**{**CLAIM, "arm": "late"}), arms).word == "not done"


def test_a_claim_may_be_about_a_figure_made_of_others() -> None:
    """The best of two parts, one of which is made of another itself: 0.5 rises to 0.75, whatever else there is."""
    base, after = (evaluation([1.0] * n + [0.0] * (40 - n)) for n in (20, 30))
    told = base["lab-vqa"].metrics["accuracy"].model_dump(exclude={"kind"})
    metrics: dict[str, AnyMetric] = {
        "other": Metric(**told | {"numerator": {"unknown": 1.0}}),
        "accuracy": Metric(**told),
        "half": Derived(label="half", unit="share", higher_is_better=True, kind="linear", parts={"accuracy": 0.5}),
        "best": Derived(
            label="best", unit="share", higher_is_better=True, kind="greatest", parts={"half": 1.0, "accuracy": 1.0}
        ),
        "last": Derived(label="last", unit="share", higher_is_better=True, kind="linear", parts={"other": 1.0}),
    }
    arms = {
        name: [{"lab-vqa": replace(run["lab-vqa"], metrics=metrics)}] for name, run in (("base", base), ("dpo", after))
    }
    found = judge_claim(ClaimSpec(**{**CLAIM, "metric": "best"}), arms)
    assert found.difference is not None and found.difference.value == pytest.approx(0.25)


def test_names_of_a_claim_must_exist() -> None:
    assert study(claims=[CLAIM]).claims[0].arm == "dpo"
    with pytest.raises(ValueError, match="there is no 'dqo'"):
        study(claims=[{**CLAIM, "arm": "dqo"}])
    with pytest.raises(ValueError, match="there is no 'lab-pope'"):
        study(claims=[{**CLAIM, "benchmark": "lab-pope"}])
    with pytest.raises(ValueError, match="margin belongs"):
        study(claims=[{**CLAIM, "expect": "same"}])
