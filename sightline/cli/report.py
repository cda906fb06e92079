"""`sightline report`: what alignment changed, as a page and as numbers; the work is `sightline.study.report`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.table import print_results
from sightline.data.terminal import say
from sightline.study.report.writing import HTML, write_report

app = typer.Typer()


@app.command()
def report(
    base: Annotated[Path, typer.Option(help="Evaluation directory of the base model.")],
    aligned: Annotated[list[Path], typer.Option(help="Evaluation directory of the aligned model; repeat for seeds.")],
    out: Annotated[Path, typer.Option(help="Directory to write: report.html, report.md, results.json.")],
    train: Annotated[list[Path] | None, typer.Option(help="Training directory; repeat for seeds.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Directory of the preference pairs.")] = None,
) -> None:
    """Compare a base and an aligned model, every difference paired and with its interval."""
    print_results(write_report(out, base=base, aligned=aligned, trainings=train or (), pairs=pairs))
    say(f"report: {out / HTML}")
