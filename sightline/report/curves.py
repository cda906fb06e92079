"""The training plots of the report, with their captions and text alternatives.

`plots` draws; captions and sentences use the numbers of the log.
"""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import NamedTuple

from sightline.evals.comparison import Evaluation
from sightline.report import plots
from sightline.report.formatting import difference_text, value_text
from sightline.report.monitored import monitored_plans
from sightline.report.plots import PlotPlan
from sightline.train.log import StepRecord

Runs = Sequence[Sequence[StepRecord]]


class Curve(NamedTuple):
    """A plot: `svg` is trusted markup, `alt` describes it with its first and last numbers."""

    title: str
    svg: str
    caption: str
    alt: str


_PLANS = (
    PlotPlan(
        "loss",
        "Loss",
        "loss",
        plots.LOSS,
        "The training loss; it starts where policy and reference agree, as if each pair were decided by a coin.",
    ),
    PlotPlan(
        "margin",
        "Reward margin",
        "implicit reward",
        plots.MARGIN,
        "Implicit rewards of both answers, and their difference, the margin.",
    ),
    PlotPlan(
        "logps",
        "Log-probs",
        "nats an answer",
        plots.LOGPS,
        "Log-probability of whole answers under the policy and, dotted, under the reference.",
    ),
    PlotPlan(
        "change",
        "Log-probs against the reference",
        "nats an answer",
        plots.LOGPS_CHANGE,
        "Policy minus reference. Where both fall, probability has gone to answers that are neither.",
    ),
    PlotPlan(
        "accuracy",
        "Accuracy",
        "share of pairs",
        plots.ACCURACY,
        "Share of pairs whose chosen answer has the higher implicit reward.",
    ),
    PlotPlan(
        "tokens",
        "Length of the pairs' answers",
        "tokens an answer",
        plots.TOKENS,
        "Chosen and rejected answers of the pairs in each step; a steady gap would teach length.",
    ),
)


def training_curves(runs: Runs) -> list[Curve]:
    """Plots of loss, margin, log-probs (two), accuracy and answer length, and of the monitored numbers in the log."""
    plans = (*_PLANS, *monitored_plans(runs))
    return [_curve(plan, runs) for plan in plans if any(_values(runs, series[3]) for series in plan.series)]


def length_curve(base: Evaluation, aligned: Sequence[Evaluation]) -> Curve | None:
    """Answer lengths before and after, on the first benchmark with a primary metric; None without answers."""
    name = next((n for n, r in base.items() if any(m.primary for m in r.metrics.values())), None)
    if name is None or not all(name in side for side in aligned):
        return None
    before = [float(answer.tokens) for answer in base[name].answers if answer.tokens is not None]
    after = [float(answer.tokens) for side in aligned for answer in side[name].answers if answer.tokens is not None]
    if not before or not after:
        return None
    svg = plots.length_histogram(before, after, "length")
    means = f"{value_text(fmean(before), 'number')} tokens before and {value_text(fmean(after), 'number')} after"
    return Curve(
        "Answer length", svg, f"Answers to {name}: {means}, on average.", f"Histogram of answer lengths: {means}."
    )


def training_sentences(runs: Runs) -> list[str]:
    """The logs in sentences: duration, change of the margin, and log-probs of chosen and rejected answers."""
    if not runs:
        return []
    steps, seconds = sum(len(run) for run in runs), sum(step.seconds for run in runs for step in run)
    trained = f"{len(runs)} runs of together {steps} steps" if len(runs) > 1 else f"{steps} steps"
    sentences = [f"Training took {trained} and {seconds:.0f} seconds."]
    margin = _ends(runs, lambda step: step.margin)
    if margin:
        first, last = (value_text(value, "number") for value in margin)
        sentences.append(f"The reward margin went from {first} (first tenth of the steps) to {last} (last tenth).")
    chosen, rejected = (_ends(runs, series[3]) for series in plots.LOGPS_CHANGE)
    if chosen and rejected:
        sentences.append(
            f"In the last tenth, the policy gave chosen answers {difference_text(chosen[1], 'number')} nats and "
            f"rejected ones {difference_text(rejected[1], 'number')} nats against the reference."
        )
    return sentences


def _curve(plan: PlotPlan, runs: Runs) -> Curve:
    described = []
    for label, _, _, value in plan.series:
        ends = _ends(runs, value)
        if ends:
            described.append(f"{label} from {value_text(ends[0], 'number')} to {value_text(ends[1], 'number')}")
    alt = f"{plan.title} over the training steps: {'; '.join(described)}."
    return Curve(plan.title, plots.training_curves(runs, plan.series, plan.unit, plan.name), plan.caption, alt)


def _values(runs: Runs, value: Callable[[StepRecord], float | None]) -> list[float]:
    return [number for run in runs for step in run if (number := value(step)) is not None]


def _ends(runs: Runs, value: Callable[[StepRecord], float | None]) -> tuple[float, float] | None:
    """Means over the first and the last tenth of the steps, over all runs."""
    first, last = [], []
    for run in runs:
        tenth = max(1, len(run) // 10)
        first += _values([run[:tenth]], value)
        last += _values([run[-tenth:]], value)
    return (fmean(first), fmean(last)) if first and last else None
