"""Where plots are drawn: one style for all of them, colors that the page's style sheet decides, SVG as the result.

Dark mode and print need no second drawing. What is drawn is `plots` and `arms.drawings`; the style sheet is
`templates/style.css.jinja`.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sightline.data.terminal import visible

#: Lines that are told apart by color; further ones by dashes too (`arms.drawings`).
ARM_COLORS = tuple(f"arm-{number}" for number in range(8))
#: Stand-ins that no plot would choose; each becomes a variable of the style sheet.
COLORS = {
    "ink": "#000001",
    "muted": "#000002",
    "line": "#000003",
    "chosen": "#000004",
    "rejected": "#000005",
    "base": "#000006",
    "aligned": "#000007",
    "better": "#000008",
    "worse": "#000009",
    "noise": "#00000a",
    **{name: f"#0000{16 + number:02x}" for number, name in enumerate(ARM_COLORS)},
}
STYLE: Any = {
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
    "text.parse_math": False,  # names are names
    "legend.frameon": False,
    "legend.labelcolor": COLORS["ink"],
    "lines.linewidth": 1.6,
}

WIDTH, HEIGHT = 4.6, 2.7  # inches; plots are scaled to their column


@contextmanager
def styled(name: str) -> Iterator[None]:
    """Draw within: the common style, and ids that depend on the name alone, so that the same plot is the same text."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        yield


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def draw_legend(axes: Axes) -> None:
    """Above the plot, in two columns."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, fontsize=8, handlelength=1.6)


def svg_text(figure: Figure, name: str) -> str:
    """The figure as an <svg> element that scales with its box; the same figure gives the same text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = visible(buffer.getvalue())
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Names of groups are for editors and would repeat over the plots of a page; references keep theirs, salted by name.
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(
        r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, flags=re.DOTALL
    )
    text = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", "var(--sans)", text)
    # Hundredths of a point are finer than any screen, and half of the page's size.
    text = re.sub(r'(?<= d=")[^"]*', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), text)
    for variable, color in COLORS.items():
        text = text.replace(color, f"var(--{variable})")
    return text.strip()
