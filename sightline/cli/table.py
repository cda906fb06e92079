"""The result table on the terminal: base, aligned, paired difference with its interval, and the verdict word."""

from rich.table import Table

from sightline.data.terminal import Screen
from sightline.study.report.formatting import difference_text, interval_text, value_text
from sightline.study.report.results import Results

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
