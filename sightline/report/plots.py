"""Plots of trainings and of answer lengths, as inline SVG.

They show the logged values and a running mean, which is used for nothing else. `canvas` sets style and colors.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sightline.report import plots
from sightline.report.canvas import COLORS, draw_legend, new_figure, styled, svg_text
from sightline.train.log import StepRecord

Series = tuple[str, str, str, Callable[[StepRecord], float | None]]  # label, color, dashes, value of a step

LOSS: tuple[Series, ...] = (("loss", "chosen", "-", lambda step: step.loss),)
MARGIN: tuple[Series, ...] = (
    ("margin", "ink", "-", lambda step: step.margin),
    ("chosen reward", "chosen", "-", lambda step: step.chosen_reward),
    ("rejected reward", "rejected", "-", lambda step: step.rejected_reward),
)
LOGPS: tuple[Series, ...] = (
    ("chosen, policy", "chosen", "-", lambda step: step.chosen_logps),
    ("chosen, reference", "chosen", ":", lambda step: step.chosen_ref_logps),
    ("rejected, policy", "rejected", "-", lambda step: step.rejected_logps),
    ("rejected, reference", "rejected", ":", lambda step: step.rejected_ref_logps),
)
LOGPS_CHANGE: tuple[Series, ...] = (
    ("chosen", "chosen", "-", lambda step: _minus(step.chosen_logps, step.chosen_ref_logps)),
    ("rejected", "rejected", "-", lambda step: _minus(step.rejected_logps, step.rejected_ref_logps)),
)
ACCURACY: tuple[Series, ...] = (("accuracy", "ink", "-", lambda step: step.accuracy),)
TOKENS: tuple[Series, ...] = (
    ("chosen", "chosen", "-", lambda step: step.chosen_tokens),
    ("rejected", "rejected", "-", lambda step: step.rejected_tokens),
)


def training_curves(runs: Sequence[Sequence[StepRecord]], series: Sequence[Series], unit: str, name: str) -> str:
    """One line per series and run: faint as logged, strong as a running mean over a twentieth of the steps."""
    with styled(name):
        figure, axes = new_figure()
        for label, color, dashes, value in series:
            for number, run in enumerate(runs):
                points = [(step.step + 1, found) for step in run if (found := value(step)) is not None]
                if not points:
                    continue
                steps, values = np.array(points).T
                if dashes == "-":
                    axes.plot(steps, values, color=COLORS[color], linewidth=0.7, alpha=0.3)
                axes.plot(
                    steps,
                    running_mean(values, max(1, len(values) // 20)),
                    dashes,
                    color=COLORS[color],
                    label=label if number == 0 else None,
                )
        axes.set_xlabel("step")
        axes.set_ylabel(unit)
        if len(series) > 1:
            draw_legend(axes)
        return svg_text(figure, name)


def length_histogram(base: Sequence[float], aligned: Sequence[float], name: str) -> str:
    """The distributions of answer length in tokens, before and after."""
    with styled(name):
        figure, axes = new_figure()
        # Lengths are integers; bins of integer width treat all of them equally.
        low, high = min(*base, *aligned), max(*base, *aligned)
        edges = np.arange(low - 0.5, high + 0.5 + (width := -(-(high - low + 1) // 24)), width).tolist()
        for label, values in (("base", base), ("aligned", aligned)):
            weights = np.full(len(values), 100 / max(1, len(values)))
            axes.hist(values, edges, weights=weights, histtype="step", color=COLORS[label], label=label, linewidth=1.6)
        axes.set_xlabel("tokens in an answer")
        axes.set_ylabel("answers, %")
        draw_legend(axes)
        return svg_text(figure, name)


def running_mean(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """The mean over at most `reach` values on either side, fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    smooth: NDArray[np.float64] = (sums[last] - sums[first]) / (last - first)
    return smooth


def _minus(value: float | None, reference: float | None) -> float | None:
    return None if value is None or reference is None else value - reference


class PlotPlan(NamedTuple):
    """A plot's specification: a `name` that is unique on the page, its axis `unit`, its series and its caption."""

    name: str
    title: str
    unit: str
    series: tuple[plots.Series, ...]
    caption: str
