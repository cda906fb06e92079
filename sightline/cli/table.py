"""Result tables on the terminal: comparisons of base and aligned models, and agreement of raters."""

from collections.abc import Sequence

from rich.table import Table

from sightline.data.terminal import Screen
from sightline.evals.agreement import Agreement
from sightline.report.comparison import Results
from sightline.report.formatting import difference_text, interval_text, value_text

_STYLES = {"better": "green", "worse": "red"}


def print_results(results: Results) -> None:
    """Print every metric of every benchmark; shares are in percent."""
    table = Table("benchmark", "metric", "base", "aligned", "difference", "95 % interval", "n", "verdict")
    for benchmark in results.benchmarks.values():
        for name, metric in benchmark.metrics.items():
            table.add_row(
                benchmark.name,
                name,
                value_text(metric.base.value, metric.unit),
                value_text(metric.aligned.value, metric.unit),
                difference_text(metric.difference.value, metric.unit),
                interval_text(metric.difference.ci95, metric.unit, signed=True),
                str(metric.difference.n),
                metric.verdict,
                style=_STYLES.get(metric.verdict),
            )
        table.add_section()
    console = Screen()
    console.print(table)
    console.print(results.headline)


def print_agreement(found: Sequence[Agreement]) -> None:
    """Print every measure with its interval, the raw agreement, and the number of units."""
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
