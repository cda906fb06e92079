"""Claims: the word follows the interval and Holm, the figure is the paired one of the arms, wrong names are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sightline.errors import InputError
from sightline.evals.directory import BenchmarkResult
from sightline.evals.metrics import AnyMetric, Derived, Metric
from sightline.records.rows import Estimate, Score
from sightline.study.claims import ClaimFinding, ClaimSpec, Word, claim_word, correct_claims, judge_claim
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
        ((-0.01, 0.05), "not worse", 0.02, "confirmed"),
        ((0.03, 0.05), "not worse", 0.02, "confirmed"),  # better by more than the margin is not worse
        ((-0.03, 0.05), "not worse", 0.02, "undecided"),
        ((-0.05, -0.03), "not worse", 0.02, "contradicted"),
        (None, "higher", None, "undecided"),
    ],
)
def test_the_word_follows_the_interval(
    interval: tuple[float, float] | None, expect: str, margin: float | None, word: str
) -> None:
    claim = ClaimSpec(**{**CLAIM, "expect": expect, "margin": margin})
    found = Estimate(value=0.0, stderr=None, ci95=interval, n=4)
    assert claim_word(found, claim, higher_is_better=True) == word
    if interval is not None and expect == "not worse":  # of a metric that is better lower, all is mirrored
        mirrored = found.model_copy(update={"ci95": (-interval[1], -interval[0])})
        assert claim_word(mirrored, claim, higher_is_better=False) == word


@pytest.mark.parametrize(
    ("interval", "published", "word"),
    [
        ((-0.007, 0.003), 0.0169, "not at the published size"),
        ((-0.007, 0.020), 0.0169, "undecided"),
        ((0.003, 0.007), 0.0169, "confirmed"),  # a sign is more than a size
        ((-0.007, 0.003), None, "undecided"),
    ],
)
def test_an_undecided_interval_may_exclude_the_published_effect(
    interval: tuple[float, float], published: float | None, word: str
) -> None:
    claim = ClaimSpec(**{**CLAIM, "published": published})
    assert claim_word(Estimate(value=0.0, stderr=None, ci95=interval, n=4), claim, higher_is_better=True) == word


def claim_of(
    word: Word, p: float | None, p_published: float | None = None, published: float | None = None
) -> ClaimFinding:
    interval = (0.01, 0.05) if word in ("confirmed", "contradicted") else (-0.01, 0.05)
    fields = {**CLAIM, "margin": None, "published": published, "word": word, "word_alone": word}
    if word == "not done":
        return ClaimFinding(**fields)
    difference = Estimate(value=0.03, stderr=0.01, ci95=interval, n=4)
    return ClaimFinding(**fields, unit="share", difference=difference, p=p, p_published=p_published)


def test_a_word_needs_holm_over_all_claims_of_the_study() -> None:
    """p = 0.001 * 4, 0.02 * 3, 0.5 * 2, and the claim that is not done counts as 1."""
    found = correct_claims(
        [
            claim_of("confirmed", 0.02),
            claim_of("contradicted", 0.001),
            claim_of("undecided", 0.5),
            claim_of("not done", None),
        ]
    )
    assert [claim.word for claim in found] == ["undecided", "contradicted", "undecided", "not done"]
    assert [claim.word_alone for claim in found] == ["confirmed", "contradicted", "undecided", "not done"]
    assert [claim.p_holm for claim in found] == [pytest.approx(0.06), pytest.approx(0.004), 1.0, None]
    assert [claim.p for claim in found] == [0.02, 0.001, 0.5, None]


def test_sizes_are_corrected_over_the_claims_that_have_a_published_one() -> None:
    """p of the published effects: 0.01 * 2 and 0.03 * 1; a third claim has none, and its p is no part of it."""
    size: Word = "not at the published size"
    found = correct_claims(
        [
            claim_of(size, 0.4, 0.03, 0.1),
            claim_of(size, 0.4, 0.01, 0.1),
            claim_of("confirmed", 0.001),
            claim_of(size, 0.4, 0.04, 0.1),
        ]
    )
    assert [claim.p_published_holm for claim in found] == [
        pytest.approx(0.06),
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
    ]
    assert [claim.word for claim in found] == ["undecided", size, "confirmed", "undecided"]


def test_a_decision_that_falls_by_holm_may_still_exclude_the_published_effect() -> None:
    falls = claim_of("confirmed", 0.04, 1e-5, 0.2)
    found = correct_claims([falls, claim_of("undecided", 0.9)])
    assert (found[0].word, found[0].word_alone) == ("not at the published size", "confirmed")


def evaluation(values: list[float]) -> dict[str, BenchmarkResult]:
    scores = tuple(
        Score(sample_id=str(i), cluster=str(i), values={"accuracy": value}) for i, value in enumerate(values)
    )
    metric = Metric(label="accuracy", unit="share", higher_is_better=True, numerator={"accuracy": 1.0})
    return {"lab-vqa": BenchmarkResult("lab-vqa", Path(), (), (), scores, {"accuracy": metric}, {})}


def test_the_figure_is_the_paired_difference_over_seeds() -> None:
    """Three seeds raise 14, 15 and 16 of 40 answers from wrong to right: 37.5 points on the mean."""
    base = evaluation([0.0] * 40)
    arms = {"base": [base] * 3, "dpo": [evaluation([1.0] * n + [0.0] * (40 - n)) for n in (14, 15, 16)]}
    found = judge_claim(ClaimSpec(**CLAIM), arms)
    assert found.difference is not None and found.difference.value == pytest.approx(0.375)
    assert found.word == "confirmed" and found.ours().startswith("+37.5")
    # Student's of the seeds alone, 0.375 / (0.025 / sqrt 3) = 26.0 with two degrees of freedom, is the larger p.
    assert found.p == pytest.approx(0.00148, rel=0.01) and found.p_holm is None
    # Of two seeds as far apart as 25 and 50 points nothing is known: Student's t of one degree is 12.7.
    apart = {"base": [base] * 2, "dpo": [evaluation([1.0] * n + [0.0] * (40 - n)) for n in (10, 20)]}
    assert judge_claim(ClaimSpec(**CLAIM), apart).word == "undecided"
    assert judge_claim(ClaimSpec(**{**CLAIM, "arm": "late"}), arms).word == "not done"


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("expect", ["higher", "same", "not worse"])
@pytest.mark.parametrize("margin", [0.02, 0.10, 0.33, 0.50])
def test_p_of_a_claim_is_below_5_percent_where_its_interval_decides(seeds: int, expect: str, margin: float) -> None:
    """About 30 points up: outside of 2 and 10, at the border of 33, within 50."""
    rng = np.random.default_rng(3)
    base = evaluation(list(rng.integers(0, 2, 120).astype(float)))
    after = [evaluation(list((rng.random(120) < 0.8).astype(float))) for _ in range(seeds)]
    fields = {**CLAIM, "expect": expect, "margin": None if expect == "higher" else margin}
    found = judge_claim(ClaimSpec(**fields), {"base": [base] * seeds, "dpo": after})
    assert found.p is not None
    assert (found.p < 0.05) == (found.word in ("confirmed", "contradicted")), (found.p, found.word)


def test_not_worse_needs_a_direction_and_goes_by_it() -> None:
    """Two points more mistakes: within a margin of 10 that is not worse, and the same as ten points fewer."""
    wrong = evaluation([1.0] * 20 + [0.0] * 380)
    more, fewer = (evaluation([1.0] * n + [0.0] * (400 - n)) for n in (24, 2))
    metric = wrong["lab-vqa"].metrics["accuracy"]
    for higher, after, margin, word in (
        (False, more, 0.10, "confirmed"),
        (False, fewer, 0.01, "confirmed"),
        (True, fewer, 0.01, "contradicted"),
    ):
        turned = metric.model_copy(update={"higher_is_better": higher})
        arms = {
            name: [{"lab-vqa": replace(run["lab-vqa"], metrics={"accuracy": turned})}]
            for name, run in (("base", wrong), ("dpo", after))
        }
        claim = ClaimSpec(**{**CLAIM, "expect": "not worse", "margin": margin})
        assert judge_claim(claim, arms).word == word
    blind = metric.model_copy(update={"higher_is_better": None})
    arms = {name: [{"lab-vqa": replace(wrong["lab-vqa"], metrics={"accuracy": blind})}] for name in ("base", "dpo")}
    with pytest.raises(InputError, match="no better direction"):
        judge_claim(ClaimSpec(**{**CLAIM, "expect": "not worse", "margin": 0.1}), arms)


def test_a_claim_may_be_about_a_figure_made_of_others() -> None:
    """The best of two parts, one of which is made of another itself: 0.5 rises to 0.75, whatever else there is."""
    base, after = (evaluation([1.0] * n + [0.0] * (40 - n)) for n in (20, 30))
    fields = base["lab-vqa"].metrics["accuracy"].model_dump(exclude={"kind"})
    metrics: dict[str, AnyMetric] = {
        "other": Metric(**fields | {"numerator": {"unknown": 1.0}}),
        "accuracy": Metric(**fields),
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
    for expect in ("same", "not worse"):
        with pytest.raises(ValueError, match="`margin` belongs"):
            study(claims=[{**CLAIM, "expect": expect}])
    with pytest.raises(ValueError, match="`margin` belongs"):
        study(claims=[{**CLAIM, "margin": 0.1}])
    with pytest.raises(ValueError, match=r"published = -0\.02 contradicts expect: higher"):
        study(claims=[{**CLAIM, "published": -0.02}])


def test_the_shipped_claims_are_no_maximum_on_the_test_rows() -> None:
    """The best of several prompts rewards a wide spread; and what "is not needed" is not worse without."""
    found = [claim for path in sorted(Path("studies").glob("*.yaml")) for claim in read_claims(path)]
    assert len(found) == 42 and not [claim for claim in found if claim.metric.endswith("_best")]
    assert {c.expect for c in found if "not needed" in c.says or "needs no" in c.says} == {"not worse"}
    same_unit = [c for c in found if c.metric in ("f1", "recall") and c.benchmark != "matching" and c.expect != "same"]
    assert len(same_unit) == 13 and all(claim.published is not None for claim in same_unit)


def read_claims(path: Path) -> list[ClaimSpec]:
    return [ClaimSpec(**claim) for claim in yaml.safe_load(path.read_text(encoding="utf-8")).get("claims", [])]
