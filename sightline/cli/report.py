"""`sightline report` and `sightline compare`: differences between evaluations; `sightline.report` does the work."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sightline.config import MAX_SEED
from sightline.data.terminal import Screen, say
from sightline.evals.agreement import Agreement
from sightline.evals.directory import read_evaluation
from sightline.evals.significance import images_needed, images_needed_over_seeds, seeds_needed
from sightline.evals.statistics import RESAMPLES
from sightline.report.comparison import MetricResult, Results, compare_evaluations
from sightline.report.formatting import NOTHING, difference_text, interval_text, p_text, value_text
from sightline.report.page import HTML, write_report

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


report_app = typer.Typer()


@report_app.command()
def report(
    base: Annotated[Path, typer.Option(help="Evaluation directory of the base model.")],
    aligned: Annotated[list[Path], typer.Option(help="Evaluation directory of the aligned model; repeat for seeds.")],
    out: Annotated[Path, typer.Option(help="Directory to write: report.html, report.md, results.json.")],
    train: Annotated[list[Path] | None, typer.Option(help="Training directory; repeat for seeds.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Directory of the preference pairs.")] = None,
) -> None:
    """Report on a base and an aligned model: paired differences with intervals, as page and numbers."""
    print_results(write_report(out, base=base, aligned=aligned, trainings=train or (), pairs=pairs))
    say(f"report: {out / HTML}")


compare_app = typer.Typer()


@compare_app.command()
def compare(
    before: Annotated[
        Path, typer.Argument(help="Evaluation directory of the first model (from `eval` or `score --out`).")
    ],
    after: Annotated[
        list[Path],
        typer.Argument(help="Evaluation directory of the second model; several are training seeds of one recipe."),
    ],
    effect: Annotated[
        float | None, typer.Option(help="Also print the number of images (or seeds) needed to detect this difference.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples.")] = RESAMPLES,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Compare two models on the same items: paired difference, interval, p, Holm-corrected p, detectable effect.

    For example: sightline compare EVAL_BASE EVAL_ALIGNED
    """
    sides = [read_evaluation(path) for path in after]
    results = compare_evaluations(read_evaluation(before), sides, resamples=resamples, seed=seed)
    if as_json:
        say(results.model_dump_json(indent=2))
    else:
        print_comparison(results, effect)


def print_comparison(results: Results, effect: float | None) -> None:
    """Print every metric of every benchmark; shares are in percent, differences of shares in points."""
    from rich.table import Table

    heads = ["benchmark", "metric", "before", "after", "difference", "95 % interval", "p", "p (Holm)", "McNemar"]
    needed = [] if effect is None else [f"images for {effect:g}", *([f"seeds for {effect:g}"] * (results.seeds > 1))]
    table = Table(*heads, "smallest", *needed, "verdict")
    for benchmark in results.benchmarks.values():
        for name, metric in benchmark.metrics.items():
            table.add_row(
                benchmark.name,
                name,
                value_text(metric.base.value, metric.unit),
                value_text(metric.aligned.value, metric.unit),
                difference_text(metric.difference.value, metric.unit),
                interval_text(metric.difference.ci95, metric.unit, signed=True),
                *(p_text(p) for p in (metric.p, metric.p_holm, metric.mcnemar_p)),
                value_text(metric.smallest_effect, metric.unit),
                *([] if effect is None else _needed_texts(metric, effect)[: len(needed)]),
                metric.verdict,
            )
        table.add_section()
    console = Screen()
    console.print(table)
    for sentence in _power_sentences(results.seeds, effect):
        console.print(sentence)


def _power_sentences(seeds: int, effect: float | None) -> list[str]:
    """Explanations of the power columns."""
    if seeds == 1:
        return [
            "smallest: the true difference that this many images detect with 80 % power at the 5 % level, for this one "
            "training seed",
            "The variance between training seeds is unknown with one seed: no interval, p or power here includes it.",
        ]
    sentences = [
        f"smallest: the true difference that this many images and {seeds} seeds detect with 80 % power at the 5 % level"
    ]
    if effect is not None:
        sentences.append(
            f"images: number needed with {seeds} seeds; seeds: number needed on the same images; "
            "a dash: no number is enough"
        )
    return sentences


def _needed_texts(metric: MetricResult, effect: float) -> list[str]:
    """The images needed to detect the effect, and the seeds if there are several."""
    if metric.spread is not None:
        found = [images_needed_over_seeds(effect, metric.spread), seeds_needed(effect, metric.spread)]
    else:
        stderr = metric.difference.stderr
        found = [images_needed(effect, stderr, metric.images) if stderr else None, None]
    return [NOTHING if number is None else str(number) for number in found]
