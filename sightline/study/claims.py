"""What a study was asked: each published claim beside our own figure, and the word that its test gives.

A claim names two arms, a metric and what should come out; `outcome` knows where the evaluations lie. A claim is decided
where the 95 % interval of the paired difference lies on one side of the claim's border, and p stays below 5 % by Holm's
correction over all claims of the study.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from sightline.config import Config
from sightline.errors import InputError
from sightline.evals.directory import BenchmarkResult
from sightline.evals.metrics import Unit, figure_alone
from sightline.evals.significance import holm
from sightline.evals.statistics import Comparison, compare
from sightline.records.rows import Estimate, Row
from sightline.report.formatting import difference_text, effect_text, interval_text

Expect = Literal["higher", "lower", "same", "not worse"]
Word = Literal["confirmed", "contradicted", "undecided", "not at the published size", "not done"]
#: The share of studies, all of whose claims are undecidable, in which one or more is decided.
LEVEL = 0.05
WITH_MARGIN = ("same", "not worse")
_MARGIN_TEXTS = {"same": "within", "not worse": "not worse by"}


class ClaimSpec(Config):
    """A claim: `arm` against `against` (an arm, or `base`) in a metric is expected to be higher, lower, the same or
    not worse.

    `margin` is what `same` and `not worse` mean, in the metric's own unit (0.02 of a share is 2 points): a difference
    that lies within plus and minus it, or one that is worse by less than it (non-inferiority), by the metric's own
    direction. `there` is what the source reports, in its own words and numbers; `published` is its difference of the
    same two arms, where its metric has the unit of ours.
    """

    says: str
    there: str
    arm: str
    against: str
    benchmark: str
    metric: str
    expect: Expect
    margin: float | None = Field(default=None, gt=0)
    published: float | None = None

    @model_validator(mode="after")
    def _margin_and_published_fit(self) -> "ClaimSpec":
        if (self.expect in WITH_MARGIN) != (self.margin is not None):
            raise ValueError("margin belongs to expect: same and expect: not worse, and only to them")
        sign = {"higher": 1, "lower": -1}.get(self.expect)
        if sign is not None and self.published is not None and self.published * sign <= 0:
            raise ValueError(
                f"published is {self.published:g}, which is not {self.expect}; it is the published figure of arm minus "
                "that of against"
            )
        return self


class ClaimFinding(Row):
    """A claim with our figure: the difference of the two arms over images and seeds, None where an arm is not done.

    `p` is of the test that decides the claim, `p_holm` corrected over all claims of the study. `p_published` is of the
    published difference, likewise corrected over the claims that have one.
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
    #: What the interval alone says: the word without Holm's correction.
    word_alone: Word = "not done"

    def ours(self) -> str:
        """Our figure as people read it: difference and interval."""
        if self.difference is None or self.unit is None:
            return ""
        interval = interval_text(self.difference.ci95, self.unit, signed=True)
        return f"{difference_text(self.difference.value, self.unit)} ({interval})"

    def asks(self) -> str:
        """What the claim is held against: its margin and the published difference."""
        if self.unit is None:
            return ""
        texts = [] if self.margin is None else [f"{_MARGIN_TEXTS[self.expect]} {effect_text(self.margin, self.unit)}"]
        if self.published is not None:
            texts.append(f"published {difference_text(self.published, self.unit)}")
        return ", ".join(texts)


def borders(expect: str, margin: float | None, higher_is_better: bool | None) -> tuple[float, float]:
    """(low, high): a difference above `high` is on one side, one below `low` on the other.

    They are one border, 0 or the margin, but for `same`, whose inside is between its two.
    """
    if margin is None:
        return 0.0, 0.0
    if expect == "same":
        return -margin, margin
    border = -margin if higher_is_better else margin
    return border, border


def word_of(difference: Estimate, claim: ClaimSpec, higher_is_better: bool | None) -> Word:
    """What the interval alone says: confirmed or contradicted where it lies wholly on one side of the border.

    The border is 0 for higher and lower, and the margin on the worse side for not worse. For `same`, an interval within
    the margins confirms, one wholly outside of them contradicts. One that decides nothing and excludes the published
    difference is `not at the published size`.
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
    """The claim's figure, from the evaluations of each arm by seed; `base` is among the arms. No correction yet.

    Raises:
        InputError: `not worse` of a metric that has no good direction.
    """
    fields = claim.model_dump()
    before, after = runs.get(claim.against), runs.get(claim.arm)
    if not before or not after:
        return ClaimFinding(**fields)
    metrics = figure_alone(after[0][claim.benchmark].metrics, claim.metric)
    metric = metrics[claim.metric]
    if claim.expect == "not worse" and metric.higher_is_better is None:
        raise InputError(
            f"study: the claim {claim.says!r} expects 'not worse', and {claim.metric} of {claim.benchmark} is better "
            "in neither direction; expect higher, lower or same"
        )
    pairs = [(b[claim.benchmark].scores, a[claim.benchmark].scores) for b, a in zip(before, after, strict=True)]
    compared = compare(pairs, metrics)[claim.metric]
    word = word_of(compared.difference, claim, metric.higher_is_better)
    return ClaimFinding(
        **fields,
        unit=metric.unit,
        difference=compared.difference,
        p=_p_of(compared, claim, metric.higher_is_better),
        p_published=None if claim.published is None else compared.p_at(claim.published),
        word=word,
        word_alone=word,
    )


def _p_of(compared: Comparison, claim: ClaimSpec, higher_is_better: bool | None) -> float | None:
    """The p of the decision that the difference is nearest to: it is below 5 % where the interval decides.

    For `same` these are two tests, one against either margin, and inside of them the larger p counts (TOST).
    """
    lower, upper = borders(claim.expect, claim.margin, higher_is_better)
    value = compared.difference.value
    if value is None:
        return None
    found = [p for p in (compared.p_at(lower), compared.p_at(upper)) if p is not None]
    return max(found, default=None)


def corrected(claims: Sequence[ClaimFinding]) -> tuple[ClaimFinding, ...]:
    """With Holm's correction over all claims, and the words that it leaves.

    A claim that is not done counts as one with p = 1, so that a word which stands cannot fall when it is done. For each
    claim at most one of "confirmed" and "contradicted" can be wrong, so that the family has as many tests as claims
    (Shaffer 1986).
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
