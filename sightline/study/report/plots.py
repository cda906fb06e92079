"""Plots as inline SVG, drawn by matplotlib in colors that the page's style sheet decides, dark mode included.

They show records as they are, with a running mean for the eye; no number is computed for other use. The style sheet is
`templates/style.css.jinja`.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sightline.train.log import StepRecord

#: Stand-ins that no plot would choose; each becomes a variable of the style sheet.
COLORS = {
    "ink": "#000001",
    "muted": "#000002",
    "line": "#000003",
    "chosen": "#000004",
    "rejected": "#000005",
    "base": "#000006",
    "aligned": "#000007",
}
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: the reader's font, searchable, and small
    "font.family": "DejaVu Sans",  # ships with matplotlib, so that every machine lays out alike
    "font.size": 9,
    "axes.edgecolor": COLORS["line"],
    "axes.labelcolor": COLORS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": COLORS["line"],
    "grid.linewidth": 0.5,
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": COLORS["ink"],
    "legend.frameon": False,
    "legend.labelcolor": COLORS["ink"],
    "lines.linewidth": 1.6,
}

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
    """One line a series and run over the steps: faint as logged, strong as a running mean over a twentieth of them."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure, axes = _figure()
        for label, color, dashes, value in series:
            for number, run in enumerate(runs):
                points = [(step.step + 1, made) for step in run if (made := value(step)) is not None]
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
            _legend(axes)
        return _svg(figure, name)


def length_histogram(base: Sequence[float], aligned: Sequence[float], name: str) -> str:
    """The distributions of answer length in tokens, before and after."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure, axes = _figure()
        # Lengths are whole numbers, and bins of whole width count each of them alike.
        low, high = min(*base, *aligned), max(*base, *aligned)
        edges = np.arange(low - 0.5, high + 0.5 + (width := -(-(high - low + 1) // 24)), width).tolist()
        for label, values in (("base", base), ("aligned", aligned)):
            weights = np.full(len(values), 100 / max(1, len(values)))
            axes.hist(values, edges, weights=weights, histtype="step", color=COLORS[label], label=label, linewidth=1.6)
        axes.set_xlabel("tokens in an answer")
        axes.set_ylabel("answers, %")
        _legend(axes)
        return _svg(figure, name)


def running_mean(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """The mean over at most `reach` values on either side; at the ends, over those that there are."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    first, last = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    smooth: NDArray[np.float64] = (sums[last] - sums[first]) / (last - first)
    return smooth


def _minus(value: float | None, reference: float | None) -> float | None:
    return None if value is None or reference is None else value - reference


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 2.7), layout="constrained")
    return figure, figure.subplots()


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, fontsize=8, handlelength=1.6)


def _svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element that scales with its box; the same figure gives the same text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Names of groups are for editors and would repeat over the plots of a page; references keep theirs, salted by name.
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(
        r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, flags=re.DOTALL
    )
    text = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", "var(--sans)", text)
    for variable, color in COLORS.items():
        text = text.replace(color, f"var(--{variable})")
    return text.strip()
