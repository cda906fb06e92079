"""`sightline fetch`: a model or a data set of the hub as a directory; the work is `sightline.data.fetching`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.config import load_config
from sightline.data import fetching

app = typer.Typer()


@app.command()
def fetch(
    type: Annotated[fetching.Type, typer.Argument(help="What it is.")],
    name: Annotated[str, typer.Argument(help="Its name on the hub: OWNER/NAME.")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    revision: Annotated[str | None, typer.Option(help="A branch, a tag or a commit.")] = None,
) -> None:
    """Fetch a model or a data set from the hub, or from its cache where HF_HUB_OFFLINE=1.

    For example: sightline fetch dataset openbmb/RLHF-V-Dataset --out data/rlhf-v
    """
    told = [f"type={type}", f"hub={name}", *([f"revision={revision}"] if revision is not None else [])]
    manifest = fetching.fetch(load_config(fetching.FetchConfig, None, told), out)
    typer.echo(f"{type}: {out} ({manifest.counts['files']} files, {manifest.numbers['bytes'] / 1e9:.2f} GB)")
