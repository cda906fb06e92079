"""The plots of a study: forests of differences, trade-offs with their front, and curves of every arm.

They compute no numbers. `report.canvas` sets style and colors; captions are written in `page`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.ticker import MaxNLocator

from sightline.evals.metrics import Unit
from sightline.report.canvas import ARM_COLORS, COLORS, HEIGHT, WIDTH, draw_legend, new_figure, styled, svg_text
from sightline.study.report.tradeoff import Side, Tradeoff
from sightline.study.report.words import is_base, name, starred
from sightline.study.results import ArmFinding

_ROW, _LEGEND_ROW = 0.27, 0.17  # inches
_LONGEST_NAME = 30
_DASHES = ("-", "--", ":")
_WORD_COLORS = {"better": "better", "worse": "worse", "higher": "ink", "lower": "ink"}
_SHAPES = ("o", "^", "D")


class ForestLine(NamedTuple):
    """One arm's curve: the mean over its seeds at each step, and the least and the greatest seed."""

    arm: str
    place: int
    steps: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def forest(rows: Sequence[ArmFinding], against: str, plot: str) -> str:
    """Differences to the baseline with their intervals, one arm per row; those within noise are hollow and muted."""
    with styled(plot):
        figure, axes = new_figure(WIDTH, 0.8 + _ROW * len(rows))
        axes.axvline(0, color=COLORS["muted"], linewidth=0.8, dashes=(3, 3))
        for place, row in enumerate(rows):
            assert row.difference is not None
            color = COLORS[_WORD_COLORS.get(row.verdict, "noise")]
            scale = 100 if row.unit == "share" else 1
            if row.difference.ci95 is not None:
                axes.plot([scale * end for end in row.difference.ci95], [place, place], color=color, linewidth=2)
            if row.difference.value is not None:
                fill = color if row.verdict in _WORD_COLORS else "none"
                axes.plot(scale * row.difference.value, place, "o", color=color, markerfacecolor=fill, markersize=5.5)
        labels = [_short(row.arm) + (" *" if starred(row) else "") for row in rows]
        axes.set_yticks(range(len(rows)), labels, color=COLORS["ink"])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"difference to {_short(against)}{', points' if rows[0].unit == 'share' else ''}")
        return svg_text(figure, plot)


def scatter(tradeoff: Tradeoff, places: Mapping[str, int], plot: str) -> str:
    """Arms by hallucination and capability with their intervals, in the colors of their curves.

    Arms of the front are filled and joined; the untrained model is a square.
    """
    with styled(plot):
        figure, axes = new_figure(WIDTH, HEIGHT + 0.3 + _LEGEND_ROW * ((len(tradeoff.points) + 1) // 2))
        sides = (tradeoff.hallucination, tradeoff.capability)
        scales = [100 if side.unit == "share" else 1 for side in sides]
        front = []
        for point in tradeoff.points:
            known = (point.hallucination, point.capability)
            x, y = (scale * (value.value or 0.0) for scale, value in zip(scales, known, strict=True))
            across, up = ([scale * end for end in value.ci95 or ()] for scale, value in zip(scales, known, strict=True))
            color, shape = _look(point.arm, places)
            axes.plot(across, [y] * len(across), color=color, linewidth=0.8, alpha=0.35)
            axes.plot([x] * len(up), up, color=color, linewidth=0.8, alpha=0.35)
            fill = color if point.front else "none"
            label = _short(point.arm)
            axes.plot(x, y, shape, color=color, markerfacecolor=fill, markersize=6.5, zorder=3, label=label)
            front += [(x, y)] if point.front else []
        axes.plot(*zip(*sorted(front), strict=True), "--", color=COLORS["muted"], linewidth=1, zorder=1)
        axes.set_xlabel(_axis(tradeoff.hallucination, "less is better"))
        axes.set_ylabel(_axis(tradeoff.capability, "more is better"))
        axes.grid(visible=True, axis="x")
        draw_legend(axes)
        return svg_text(figure, plot)


def arm_curves(lines: Sequence[ForestLine], unit: str, plot: str) -> str:
    """One line per arm over the steps: the mean of its seeds, with a band from the lowest to the highest seed."""
    with styled(plot):
        figure, axes = new_figure(WIDTH, HEIGHT + _LEGEND_ROW * ((len(lines) + 1) // 2))
        for line in lines:
            color = COLORS[ARM_COLORS[line.place % len(ARM_COLORS)]]
            dashes = _DASHES[line.place // len(ARM_COLORS) % len(_DASHES)]
            if line.low != line.high:
                axes.fill_between(line.steps, line.low, line.high, color=color, alpha=0.15, linewidth=0)
            axes.plot(line.steps, line.mean, dashes, color=color, label=_short(line.arm))
        axes.set_xlabel("step")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        draw_legend(axes)
        return svg_text(figure, plot)


def colors(count: int) -> list[str]:
    """The style sheet's color variable of each arm, as in the curves."""
    return [ARM_COLORS[place % len(ARM_COLORS)] for place in range(count)]


def _look(arm: str, places: Mapping[str, int]) -> tuple[str, str]:
    """Color and shape of an arm's mark."""
    if is_base(arm):
        return COLORS["ink"], "s"
    place = places[arm]
    return COLORS[ARM_COLORS[place % len(ARM_COLORS)]], _SHAPES[place // len(ARM_COLORS) % len(_SHAPES)]


def _axis(side: Side, better: str) -> str:
    label = side.label if len(side.label) <= 44 else side.label[:43].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
    return f"{label}{', %' if _is_share(side.unit) else ''}\n({side.benchmark}; {better})"


def _is_share(unit: Unit) -> bool:
    return unit == "share"


def _short(arm: str) -> str:
    arm = name(arm).removeprefix("the ")
    return arm if len(arm) <= _LONGEST_NAME else arm[: _LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"
