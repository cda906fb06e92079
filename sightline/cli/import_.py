"""`sightline import`: published and peers' layouts into records of ours; the work is `sightline.data.formats`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.data.formats.registry import AUTO, LAYOUTS
from sightline.data.terminal import say

app = typer.Typer()

_EPILOG = "Layouts: " + "; ".join(f"{layout.name}: {layout.summary}" for layout in LAYOUTS.values())


@app.command("import", epilog=_EPILOG)
def import_(
    layout: Annotated[str, typer.Argument(help=f"Name of the layout, or '{AUTO}' to know it by its columns.")],
    place: Annotated[Path, typer.Argument(help="JSON, JSONL or Parquet file, or a directory of them.")],
    out: Annotated[Path, typer.Option(help="Directory to write: pairs, or samples for instructions.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder that image paths are below; beside the files by default.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="What ids begin with; the layout's name by default.")] = "",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Drop and count rows that break the layout.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
) -> None:
    """Read local files of a published or a peer's layout. Nothing is fetched.

    For example: sightline import povid POVID.json --images coco/train2014 --out DIR
    """
    from sightline.config import load_config
    from sightline.data.formats.drafts import ReadConfig
    from sightline.data.formats.importing import Request, import_layout
    from sightline.data.progress import one_bar

    read = load_config(ReadConfig, None, overrides or ())
    request = Request(place, layout, images, prefix, skip_bad, read)
    with one_bar("rows") as progress:
        manifest = import_layout(request, out, progress)
    made = ", ".join(f"{count} {name}" for name, count in manifest.counts.items())
    say(f"{manifest.stage}: {out} ({made}, dropped {manifest.dropped or 'none'})")
