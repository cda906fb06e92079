"""`sightline score`: a file of answers becomes a benchmark's official numbers, without the model that gave them.

The work is `sightline.evals.answered_files`; names of benchmarks are in `sightline.evals.registry`.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from sightline.evals.answered_files import Scored, score_file
from sightline.evals.benchmark import Setting
from sightline.evals.statistics import RESAMPLES

app = typer.Typer()


@app.command()
def score(  # noqa: PLR0913 - one parameter an option
    bench: Annotated[str, typer.Argument(help="The benchmark, such as pope.")],
    answers: Annotated[Path, typer.Option(help="JSONL or JSON: an id and a text in each row, or our answers.jsonl.")],
    data: Annotated[Path, typer.Option(help="Folder with the benchmark's official files.")],
    split: Annotated[str | None, typer.Option(help="One official part; all of them where it is left out.")] = None,
    synonyms: Annotated[Path | None, typer.Option(help="Official word list, in place of ours.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many pictures.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to keep samples, answers and scores in.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object of all metrics.")] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Resamples behind the intervals.")] = RESAMPLES,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.")] = 0,
) -> None:
    """Score answers by a benchmark's official rule, with n, standard error and interval; needs no model.

    For example: sightline score pope --answers answers.jsonl --data POPE_DIR --split random
    """
    setting = Setting(data, limit=limit, split=split, synonyms=synonyms)
    scored = score_file(bench, answers, setting, out=out, resamples=resamples, seed=seed)
    if as_json:
        typer.echo(
            json.dumps({name: made.model_dump(mode="json") for name, made in scored.estimates.items()}, indent=2)
        )
    else:
        print_scored(bench, scored)
    for note in scored.notes:
        typer.echo(f"note: {note}", err=True)
    if out is not None:
        typer.echo(f"evaluation: {out}", err=as_json)


def print_scored(name: str, scored: Scored) -> None:
    """Print every metric that has a value, with its interval; shares are in percent."""
    from rich.console import Console
    from rich.table import Table

    from sightline.study.report.formatting import interval_text, value_text

    table = Table("metric", "value", "std. error", "95 % interval", "n", "unscored", title=name)
    for key, made in scored.estimates.items():
        metric = scored.metrics[key]
        if made.value is None and made.n == 0:
            continue
        table.add_row(
            key,
            value_text(made.value, metric.unit),
            value_text(made.stderr, metric.unit),
            interval_text(made.ci95, metric.unit, signed=False),
            str(made.n),
            str(made.unscored),
        )
    Console().print(table)
