"""Training curves of a study: one curve per arm for each logged quantity, the mean over seeds with their range.

It reads the logs of finished trainings. `drawings` draws; `report.curves` has the curves of a single run.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np

from sightline.records.rows import Row
from sightline.report import plots
from sightline.report.curves import Curve
from sightline.report.formatting import value_text
from sightline.report.gallery import evenly
from sightline.report.plots import PlotPlan, running_mean
from sightline.study.report.drawings import ForestLine, arm_curves
from sightline.study.report.ingredients import level_text
from sightline.train.log import StepRecord
from sightline.train.monitors import step_means

POINTS = 120  # of a curve; more than a plot of this width can show

Runs = Sequence[Sequence[StepRecord]]  # of one arm, one log a seed
Value = Callable[[StepRecord], float | None]


class Learned(Row):
    """A logged quantity in the first and the last tenth of the steps, averaged over the seeds of an arm."""

    arm: str
    quantity: str
    unit: str
    first: float
    last: float


def _own(name: str) -> Value:
    return lambda step: step_means(step, "").get(name)


def _plan(name: str, title: str, unit: str, value: Value, caption: str) -> PlotPlan:
    return PlotPlan(name, title, unit, ((title, "ink", "-", value),), caption)


_LOSS = _plan("loss", "Loss", "loss", plots.LOSS[0][3], "The training loss; other objectives have other scales.")
_PLANS = (
    _plan(
        "margin", "Reward margin", "implicit reward", plots.MARGIN[0][3], "Implicit reward of chosen minus rejected."
    ),
    _plan(
        "chosen-change",
        "Chosen answers against the reference",
        "nats an answer",
        plots.LOGPS_CHANGE[0][3],
        "Log-prob under the policy minus that under the reference. Below 0, training makes even chosen answers rarer.",
    ),
    _plan(
        "rejected-change",
        "Rejected answers against the reference",
        "nats an answer",
        plots.LOGPS_CHANGE[1][3],
        "The same of rejected answers.",
    ),
    _plan("chosen-logps", "Log-prob of chosen answers", "nats an answer", plots.LOGPS[0][3], "Under the policy."),
    _plan("rejected-logps", "Log-prob of rejected answers", "nats an answer", plots.LOGPS[2][3], "Under the policy."),
    _plan("chosen-tokens", "Length of chosen answers", "tokens", plots.TOKENS[0][3], "Of the pairs in each step."),
    _plan("rejected-tokens", "Length of rejected answers", "tokens", plots.TOKENS[1][3], "Of the pairs in each step."),
    _plan("own-tokens", "Length of the policy's own answers", "tokens", _own("answer_tokens"), "Where it answers."),
    _plan("reward", "Reward", "reward", _own("reward"), "Of the policy's own answers, by the judge of its training."),
    _plan("kl", "Distance from the reference", "nats a token", _own("kl"), "Over the policy's own answers."),
)


def learning(logs: Mapping[str, Runs], objectives: Mapping[str, object]) -> tuple[list[Curve], tuple[Learned, ...]]:
    """Curves of every logged quantity, and their ends. Losses share a plot only if their objective is the same.

    `logs` has the arms in the order of their colors, `objectives` the loss section of each arm's config.
    """
    curves: list[Curve] = []
    ends: list[Learned] = []
    objective_texts = {arm: level_text(objectives.get(arm)) for arm in logs}
    groups = list(dict.fromkeys(objective_texts.values()))
    for number, group in enumerate(groups):
        suffix = f" ({group})" if len(groups) > 1 and group != "none" else ""
        plan = _LOSS._replace(name=f"loss-{number}", title=_LOSS.title + suffix)
        curves += _curves(plan, logs, {arm for arm in logs if objective_texts[arm] == group}, ends)
    for plan in _PLANS:
        curves += _curves(plan, logs, set(logs), ends)
    return curves, tuple(ends)


def mean_curve(arm: str, place: int, runs: Runs, value: Value) -> ForestLine | None:
    """The mean, lowest and highest seed, each smoothed over a twentieth of its steps on either side.

    Only steps that every seed logged count; None if there are none.
    """
    smoothed = []
    for run in runs:
        found = [(step.step + 1, number) for step in run if (number := value(step)) is not None]
        if found:
            steps, values = np.array(found, dtype=np.float64).T
            smooth = running_mean(values, max(1, len(values) // 20))
            smoothed.append(dict(zip(steps.tolist(), smooth.tolist(), strict=True)))
    if not smoothed or len(smoothed) < len(runs):
        return None
    steps_of_all = evenly([step for step in smoothed[0] if all(step in seed for seed in smoothed)], POINTS)
    columns = [[seed[step] for seed in smoothed] for step in steps_of_all]
    if not columns:
        return None
    return ForestLine(
        arm, place, steps_of_all, [fmean(c) for c in columns], [min(c) for c in columns], [max(c) for c in columns]
    )


def _curves(plan: PlotPlan, logs: Mapping[str, Runs], members: set[str], ends: list[Learned]) -> list[Curve]:
    """The plot, if any arm logged it; its ends go into `ends`."""
    value = plan.series[0][3]
    lines, described = [], []
    for place, (arm, runs) in enumerate(logs.items()):
        line = mean_curve(arm, place, runs, value) if arm in members else None
        if line is None:
            continue
        lines.append(line)
        first, last = _ends(runs, value)
        ends.append(Learned(arm=arm, quantity=plan.title, unit=plan.unit, first=first, last=last))
        described.append(f"{arm} from {value_text(first, 'number')} to {value_text(last, 'number')}")
    if not lines:
        return []
    alt = f"{plan.title} over the training steps, mean of the seeds: {'; '.join(described)}."
    return [Curve(plan.title, arm_curves(lines, plan.unit, f"arms-{plan.name}"), plan.caption, alt)]


def _ends(runs: Runs, value: Value) -> tuple[float, float]:
    """Means over the first and the last tenth of the steps, each seed alike."""
    sides: tuple[list[float], list[float]] = ([], [])
    for run in runs:
        values = [number for step in run if (number := value(step)) is not None]
        tenth = max(1, len(values) // 10)
        sides[0].append(fmean(values[:tenth]))
        sides[1].append(fmean(values[-tenth:]))
    return fmean(sides[0]), fmean(sides[1])
