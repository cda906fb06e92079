"""The headline of a study: in each of a few situations, a method beside its simpler alternative, in one metric.

A contrast names two arms. What each does to the baseline and the paired difference between the two decide what it means
for a user; `report.words` writes the sentences.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from sightline.config import Config
from sightline.errors import InputError
from sightline.evals.comparison import Evaluation, MetricDifference
from sightline.evals.metrics import metric_with_parts
from sightline.evals.significance import holm
from sightline.evals.statistics import compare
from sightline.records.rows import Row

#: What a contrast means for a user. `both`: the two help, and no difference between them is shown.
Meaning = Literal[
    "method", "alternative", "both", "method alone", "alternative alone", "neither", "harm", "not estimable"
]


class ContrastSpec(Config):
    """One situation: a method beside its simpler alternative."""

    title: str = Field(min_length=1, description="the situation as the opening of a sentence: With clean references")
    arm: str = Field(description="the arm of the method")
    against: str = Field(description="the arm of the simpler alternative")


class HeadlineSpec(Config):
    """What the report opens with: contrasts of arms in one metric."""

    benchmark: str = Field(description="the benchmark of the headline")
    metric: str = Field(description="its metric, which must have a better direction")
    contrasts: tuple[ContrastSpec, ...] = Field(min_length=1, description="a method and its alternative, by situation")
    labels: dict[str, str] = Field(default_factory=dict, description="what sentences call an arm (default: its name)")

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm that the headline names."""
        return (*self.labels, *(arm for contrast in self.contrasts for arm in (contrast.arm, contrast.against)))


class ContrastFinding(Row):
    """A contrast with our results; `method` and `alternative` are None where an arm is not done.

    `method` and `alternative` are differences to the baseline, `difference` is the method minus the alternative, all
    paired by image and seed. `ratio` is the alternative's effect as a share of the method's, None unless both help.
    """

    title: str
    arm: str
    against: str
    arm_label: str
    against_label: str
    benchmark: str
    metric: str
    method: MetricDifference | None = None
    alternative: MetricDifference | None = None
    difference: MetricDifference | None = None
    meaning: Meaning | Literal["not done"] = "not done"
    ratio: float | None = None


def find_contrasts(
    spec: HeadlineSpec | None, model: str, runs: Mapping[str, Sequence[Evaluation]], baseline: str, resamples: int
) -> list[ContrastFinding]:
    """The contrasts of the headline for one model, whose arms have their short names in `runs`.

    Raises:
        InputError: the benchmark lacks the metric, or the metric has no better direction.
    """
    return [] if spec is None else [_find(spec, each, model, runs, baseline, resamples) for each in spec.contrasts]


def _find(
    spec: HeadlineSpec,
    contrast: ContrastSpec,
    model: str,
    runs: Mapping[str, Sequence[Evaluation]],
    baseline: str,
    resamples: int,
) -> ContrastFinding:
    labels = {arm: spec.labels.get(arm, arm) for arm in (contrast.arm, contrast.against)}
    found = ContrastFinding(
        title=f"{model}: {contrast.title}" if model else contrast.title,
        arm=contrast.arm,
        against=contrast.against,
        arm_label=labels[contrast.arm],
        against_label=labels[contrast.against],
        benchmark=spec.benchmark,
        metric=spec.metric,
    )
    if contrast.arm not in runs or contrast.against not in runs:
        return found
    pairs = ((baseline, contrast.arm), (baseline, contrast.against), (contrast.against, contrast.arm))
    method, alternative, difference = (_compared(spec, runs[before], runs[after], resamples) for before, after in pairs)
    return found.model_copy(
        update={
            "method": method,
            "alternative": alternative,
            "difference": difference,
            "meaning": meaning(method.verdict, alternative.verdict, difference.verdict),
            "ratio": _ratio(method, alternative),
        }
    )


def _compared(
    spec: HeadlineSpec, before: Sequence[Evaluation], after: Sequence[Evaluation], resamples: int
) -> MetricDifference:
    known = before[0][spec.benchmark].metrics
    if spec.metric not in known or known[spec.metric].higher_is_better is None:
        able = [name for name, metric in known.items() if metric.higher_is_better is not None]
        raise InputError(
            f"study: headline.metric is {spec.metric!r}, which is no metric of {spec.benchmark} with a better"
            f" direction; those are {', '.join(able) or 'none'}"
        )
    metrics = metric_with_parts(known, spec.metric)
    scores = [(b[spec.benchmark].scores, a[spec.benchmark].scores) for b, a in zip(before, after, strict=True)]
    return MetricDifference.of(metrics[spec.metric], compare(scores, metrics, resamples=resamples)[spec.metric])


def correct_contrasts(contrasts: Sequence[ContrastFinding]) -> tuple[ContrastFinding, ...]:
    """The contrasts with `difference.p_holm`, corrected over all contrasts; one that is not done counts with p = 1."""
    known = [None if found.difference is None else found.difference.p for found in contrasts]
    corrected = holm([1.0 if p is None else p for p in known])
    return tuple(
        found
        if found.difference is None or found.difference.p is None
        else found.model_copy(update={"difference": found.difference.model_copy(update={"p_holm": p})})
        for found, p in zip(contrasts, corrected, strict=True)
    )


def meaning(method: str, alternative: str, difference: str) -> Meaning:
    """What three verdicts mean: of each arm against the baseline, and of the method against the alternative.

    `method` or `alternative`: it helps, and is better than the other. `both`: each helps, and their difference is
    within noise. `method alone`, `alternative alone`: it helps, the other is not shown to, and their difference is
    within noise. `neither`: no arm is shown to help. `harm`: no arm helps, and one is worse than the baseline.
    """
    if "not estimable" in (method, alternative, difference):
        return "not estimable"
    helps = (method == "better", alternative == "better")
    if not any(helps):
        return "harm" if "worse" in (method, alternative) else "neither"
    if difference == "better" and helps[0]:
        return "method"
    if difference == "worse" and helps[1]:
        return "alternative"
    if all(helps):
        return "both"
    return "method alone" if helps[0] else "alternative alone"


def _ratio(method: MetricDifference, alternative: MetricDifference) -> float | None:
    values = [each.difference.value if each.difference else None for each in (method, alternative)]
    if method.verdict != "better" or alternative.verdict != "better" or not values[0] or values[1] is None:
        return None
    return values[1] / values[0]
