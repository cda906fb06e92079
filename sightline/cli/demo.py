"""`sightline demo`: the whole way on the embedded lab; the work is in `sightline.lab.demo`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.data.terminal import say

app = typer.Typer()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory of all stages and of the report.")] = Path("runs/aligned"),
    pairs: Annotated[int, typer.Option(min=8, help="Preference scenes.")] = 320,
    scenes: Annotated[int, typer.Option(min=10, help="Test scenes of each kind, natural and counter-prior.")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds of pairs and training.")] = 1,
) -> None:
    """Run the whole way on the embedded lab: pictures, pairs, training, measuring, report."""
    from sightline.cli.table import print_results
    from sightline.data.progress import one_bar
    from sightline.lab.demo import run_demo

    results = run_demo(out, pairs=pairs, scenes=scenes, seeds=tuple(range(seeds)), bar=one_bar)
    print_results(results)
    say(f"report: {out / 'report.html'}")
