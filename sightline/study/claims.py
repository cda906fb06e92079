"""Claims: published results tested with a study's own evaluations.

A claim names two arms, a metric and the expected outcome; `results` supplies the evaluations. A claim is decided if the
95 % interval of the paired difference lies on one side of the claim's boundary and p is below 5 % after Holm's
correction over all claims of the study.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from sightline.config import Config
from sightline.errors import InputError
from sightline.evals.directory import BenchmarkResult
from sightline.evals.metrics import Unit, metric_with_parts
from sightline.evals.significance import holm
from sightline.evals.statistics import Comparison, compare
from sightline.records.rows import Estimate, Row
from sightline.report.formatting import difference_text, effect_text, interval_text

Expect = Literal["higher", "lower", "same", "not worse"]
Word = Literal["confirmed", "contradicted", "undecided", "not at the published size", "not done"]
#: Familywise error rate of the verdicts on claims.
LEVEL = 0.05
WITH_MARGIN = ("same", "not worse")
_MARGIN_TEXTS = {"same": "within", "not worse": "not worse by"}


class ClaimSpec(Config):
    """A claim about the difference of two arms in a metric; with `same` it is an equivalence, with `not worse` a
    non-inferiority test.
    """

    says: str = Field(description="the claim in one sentence")
    there: str = Field(description="where it is published: paper and table or section")
    arm: str = Field(description="the arm in question")
    against: str = Field(description="the arm it is compared with, or base (the untrained model)")
    benchmark: str = Field(description="the benchmark")
    metric: str = Field(description="the benchmark's metric")
    expect: Expect = Field(description="expected outcome: the arm's metric is higher, lower, equivalent, or not worse")
    margin: float | None = Field(
        default=None,
        gt=0,
        description="with same: the largest difference that counts as equivalent; with not worse: the largest loss "
        "accepted; in the metric's unit (0.02 of a share is 2 points)",
    )
    published: float | None = Field(
        default=None, description="the published difference between these two arms, if its metric has the same unit"
    )

    @model_validator(mode="after")
    def _margin_and_published_fit(self) -> "ClaimSpec":
        if (self.expect in WITH_MARGIN) != (self.margin is not None):
            raise ValueError("`margin` belongs to `expect: same` and `expect: not worse`, and only to them")
        sign = {"higher": 1, "lower": -1}.get(self.expect)
        if sign is not None and self.published is not None and self.published * sign <= 0:
            raise ValueError(
                f"published = {self.published:g} contradicts expect: {self.expect}; give the published value of "
                "`arm` minus that of `against`"
            )
        return self


class ClaimFinding(Row):
    """A claim with our result: the difference between the two arms over images and seeds; None if an arm is not done.

    `p` belongs to the test that decides the claim; `p_holm` is corrected over all claims of the study. `p_published`
    tests the published difference and is corrected over the claims that have one.
    """

    says: str
    there: str
    arm: str
    against: str
    benchmark: str
    metric: str
    expect: str
    margin: float | None
    published: float | None = None
    unit: Unit | None = None
    difference: Estimate | None = None
    p: float | None = None
    p_holm: float | None = None
    p_published: float | None = None
    p_published_holm: float | None = None
    word: Word = "not done"
    #: The verdict of the interval alone, without Holm's correction.
    word_alone: Word = "not done"

    def ours(self) -> str:
        """Our difference and its interval as text."""
        if self.difference is None or self.unit is None:
            return ""
        interval = interval_text(self.difference.ci95, self.unit, signed=True)
        return f"{difference_text(self.difference.value, self.unit)} ({interval})"

    def asks(self) -> str:
        """The margin and the published difference that the claim is tested against."""
        if self.unit is None:
            return ""
        texts = [] if self.margin is None else [f"{_MARGIN_TEXTS[self.expect]} {effect_text(self.margin, self.unit)}"]
        if self.published is not None:
            texts.append(f"published {difference_text(self.published, self.unit)}")
        return ", ".join(texts)


def borders(expect: str, margin: float | None, higher_is_better: bool | None) -> tuple[float, float]:
    """(low, high): a difference above `high` lies on one side, one below `low` on the other.

    Both are the same boundary, 0 or the margin, except for `same`, which accepts what lies between them.
    """
    if margin is None:
        return 0.0, 0.0
    if expect == "same":
        return -margin, margin
    border = -margin if higher_is_better else margin
    return border, border


def claim_word(difference: Estimate, claim: ClaimSpec, higher_is_better: bool | None) -> Word:
    """The verdict of the interval alone: confirmed or contradicted if it lies entirely on one side of the boundary.

    The boundary is 0 for higher and lower, and the margin on the worse side for not worse. For `same`, an interval
    within the margins confirms and one entirely outside them contradicts. An interval that decides nothing but excludes
    the published difference gives `not at the published size`.
    """
    if difference.ci95 is None:
        return "undecided"
    low, high = difference.ci95
    lower, upper = borders(claim.expect, claim.margin, higher_is_better)
    if claim.expect == "same":
        if lower <= low and high <= upper:
            return "confirmed"
        if low > upper or high < lower:
            return "contradicted"
    elif low > upper or high < lower:
        wants_higher = claim.expect == "higher" or (claim.expect == "not worse" and bool(higher_is_better))
        return "confirmed" if (low > upper) == wants_higher else "contradicted"
    if claim.published is not None and not low <= claim.published <= high:
        return "not at the published size"
    return "undecided"


def judge_claim(claim: ClaimSpec, runs: Mapping[str, Sequence[Mapping[str, BenchmarkResult]]]) -> ClaimFinding:
    """Test a claim, without correction, with the evaluations of each arm by seed; `base` is one of the arms.

    Raises:
        InputError: `not worse` was expected of a metric that has no better direction.
    """
    fields = claim.model_dump()
    before, after = runs.get(claim.against), runs.get(claim.arm)
    if not before or not after:
        return ClaimFinding(**fields)
    metrics = metric_with_parts(after[0][claim.benchmark].metrics, claim.metric)
    metric = metrics[claim.metric]
    if claim.expect == "not worse" and metric.higher_is_better is None:
        raise InputError(
            f"study: the claim {claim.says!r} expects 'not worse', but {claim.metric} of {claim.benchmark} has no "
            "better direction; expect higher, lower or same"
        )
    pairs = [(b[claim.benchmark].scores, a[claim.benchmark].scores) for b, a in zip(before, after, strict=True)]
    compared = compare(pairs, metrics)[claim.metric]
    word = claim_word(compared.difference, claim, metric.higher_is_better)
    return ClaimFinding(
        **fields,
        unit=metric.unit,
        difference=compared.difference,
        p=_claim_p_value(compared, claim, metric.higher_is_better),
        p_published=None if claim.published is None else compared.p_at(claim.published),
        word=word,
        word_alone=word,
    )


def _claim_p_value(compared: Comparison, claim: ClaimSpec, higher_is_better: bool | None) -> float | None:
    """The p of the claim's test: below 5 % where the interval decides.

    For `same` there are two one-sided tests, one against each margin, and the larger p counts (TOST).
    """
    lower, upper = borders(claim.expect, claim.margin, higher_is_better)
    value = compared.difference.value
    if value is None:
        return None
    found = [p for p in (compared.p_at(lower), compared.p_at(upper)) if p is not None]
    return max(found, default=None)


def correct_claims(claims: Sequence[ClaimFinding]) -> tuple[ClaimFinding, ...]:
    """Apply Holm's correction over all claims and reduce their verdicts to those that survive it.

    A claim that is not done counts with p = 1, so that completing it cannot overturn another verdict. For each claim at
    most one of "confirmed" and "contradicted" can be wrong, so the family has as many tests as claims (Shaffer 1986).
    """
    decided = holm([1.0 if claim.p is None else claim.p for claim in claims])
    sized = [claim for claim in claims if claim.published is not None]
    sizes = holm([1.0 if claim.p_published is None else claim.p_published for claim in sized])
    of_size = {id(claim): p for claim, p in zip(sized, sizes, strict=True)}
    return tuple(_corrected(claim, p, of_size.get(id(claim))) for claim, p in zip(claims, decided, strict=True))


def _corrected(claim: ClaimFinding, p_holm: float | None, p_published: float | None) -> ClaimFinding:
    if claim.difference is None:
        return claim
    is_decided = claim.word_alone in ("confirmed", "contradicted") and p_holm is not None and p_holm < LEVEL
    is_other = p_published is not None and p_published < LEVEL and _excludes(claim.difference, claim.published)
    word: Word = claim.word_alone if is_decided else "not at the published size" if is_other else "undecided"
    return claim.model_copy(
        update={
            "p_holm": None if claim.p is None else p_holm,
            "p_published_holm": None if claim.p_published is None else p_published,
            "word": word,
        }
    )


def _excludes(difference: Estimate, value: float | None) -> bool:
    return value is not None and difference.ci95 is not None and not difference.ci95[0] <= value <= difference.ci95[1]
