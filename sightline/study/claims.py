"""What a study was asked: each published claim beside our own figure, and the word that the interval gives.

A claim names two arms, a metric and what should come out; `outcome` knows where the evaluations lie. The word follows
the 95 % interval of the paired difference and nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from sightline.config import Config
from sightline.evals.directory import BenchmarkResult
from sightline.evals.metrics import figure_alone
from sightline.evals.statistics import compare
from sightline.records.rows import Estimate, Row
from sightline.study.report.formatting import Unit, difference_text, interval_text

Word = Literal["confirmed", "contradicted", "undecided", "not done"]


class ClaimSpec(Config):
    """A claim: `arm` against `against` (an arm, or `base`) in a metric is expected to be higher, lower or the same.

    `margin` is what `same` means: a difference whose whole interval lies within plus and minus it, in the metric's own
    unit (0.02 of a share is 2 points). `there` is what the source reports, in its own words and numbers.
    """

    says: str
    there: str
    arm: str
    against: str
    benchmark: str
    metric: str
    expect: Literal["higher", "lower", "same"]
    margin: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _margin_with_same(self) -> "ClaimSpec":
        if (self.expect == "same") != (self.margin is not None):
            raise ValueError("margin belongs to expect: same, and only to it")
        return self


class ClaimFinding(Row):
    """A claim with our figure: the difference of the two arms over images and seeds, None where an arm is not done."""

    says: str
    there: str
    arm: str
    against: str
    benchmark: str
    metric: str
    expect: str
    margin: float | None
    unit: Unit | None = None
    difference: Estimate | None = None
    word: Word = "not done"

    def ours(self) -> str:
        """Our figure as people read it: difference and interval."""
        if self.difference is None or self.unit is None:
            return ""
        interval = interval_text(self.difference.ci95, self.unit, signed=True)
        return f"{difference_text(self.difference.value, self.unit)} ({interval})"


def word_of(difference: Estimate, expect: str, margin: float | None) -> Word:
    """Confirmed or contradicted where the interval lies wholly on one side of the border; undecided elsewhere.

    The border is 0 for higher and lower. For `same`, an interval within the margins confirms, one wholly outside of
    them contradicts.
    """
    if difference.ci95 is None:
        return "undecided"
    low, high = difference.ci95
    if margin is not None:
        if -margin <= low and high <= margin:
            return "confirmed"
        return "contradicted" if low > margin or high < -margin else "undecided"
    if low <= 0 <= high:
        return "undecided"
    return "confirmed" if (low > 0) == (expect == "higher") else "contradicted"


def judge_claim(claim: ClaimSpec, runs: Mapping[str, Sequence[Mapping[str, BenchmarkResult]]]) -> ClaimFinding:
    """The claim's figure, from the evaluations of each arm by seed; `base` is among the arms."""
    told = claim.model_dump()
    before, after = runs.get(claim.against), runs.get(claim.arm)
    if not before or not after:
        return ClaimFinding(**told)
    metrics = figure_alone(after[0][claim.benchmark].metrics, claim.metric)
    pairs = [(b[claim.benchmark].scores, a[claim.benchmark].scores) for b, a in zip(before, after, strict=True)]
    difference = compare(pairs, metrics)[claim.metric].difference
    word = word_of(difference, claim.expect, claim.margin)
    return ClaimFinding(**told, unit=metrics[claim.metric].unit, difference=difference, word=word)
