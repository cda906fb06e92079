"""The common style of plots, and their export as SVG in which the page's style sheet sets the colors.

Dark mode and print therefore need no second plot. `plots` and `study.report.drawings` draw; the style sheet is
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

#: Colors of lines; further lines also differ by dashes (`study.report.drawings`).
ARM_COLORS = tuple(f"arm-{number}" for number in range(8))
#: Placeholder colors; each is replaced by a variable of the style sheet.
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
    "svg.fonttype": "none",  # keep text as text: searchable, small, in the reader's font
    "font.family": "DejaVu Sans",  # ships with matplotlib, so layouts agree across machines
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
    "text.parse_math": False,  # names may contain $
    "legend.frameon": False,
    "legend.labelcolor": COLORS["ink"],
    "lines.linewidth": 1.6,
}

WIDTH, HEIGHT = 4.6, 2.7  # inches; plots are scaled to their column


@contextmanager
def styled(name: str) -> Iterator[None]:
    """A context with the common style and with ids derived from the name, so that equal plots give equal text."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        yield


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def draw_legend(axes: Axes) -> None:
    """Draw the legend above the plot, in two columns."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0, fontsize=8, handlelength=1.6)


def svg_text(figure: Figure, name: str) -> str:
    """The figure as an <svg> element that scales with its box; deterministic."""
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
