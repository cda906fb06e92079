"""`sightline export`: a directory of pairs in a peer's layout; the work is `sightline.data.formats.exporting`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.data.formats.exporting import TARGETS, export_pairs
from sightline.data.progress import one_bar

app = typer.Typer()

_EPILOG = "Layouts: " + "; ".join(f"{name}: {target.summary}" for name, target in TARGETS.items())


@app.command(epilog=_EPILOG)
def export(
    layout: Annotated[str, typer.Argument(help=f"One of {', '.join(TARGETS)}.")],
    pairs: Annotated[Path, typer.Argument(help="Directory of pairs.")],
    out: Annotated[Path, typer.Option(help="Directory to write, images included.")],
) -> None:
    """Write preference pairs for another trainer."""
    with one_bar("pairs") as progress:
        manifest = export_pairs(layout, pairs, out, progress)
    typer.echo(f"{manifest.stage}: {out} ({manifest.counts['pairs']} pairs)")
