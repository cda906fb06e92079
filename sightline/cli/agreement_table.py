"""The table of raters' agreement on the terminal."""

from collections.abc import Sequence

from rich.table import Table

from sightline.data.terminal import Screen
from sightline.evals.agreement import Agreement


def print_agreement(found: Sequence[Agreement]) -> None:
    """Print every figure with its interval, the plain share of agreement, and over how many units it is."""
    table = Table("about", "measure", "raters", "agreement", "corrected for chance", "95 % interval", "n")
    for one in found:
        value, ends = one.estimate.value, one.estimate.ci95
        table.add_row(
            one.about,
            one.measure,
            ", ".join(one.raters) if len(one.raters) < 5 else f"{len(one.raters)} raters",
            "" if one.observed is None else f"{100 * one.observed:.1f} %",
            "undefined" if value is None else f"{value:.3f}",
            "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}",
            str(one.estimate.n),
        )
    Screen().print(table)
