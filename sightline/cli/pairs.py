"""`sightline pairs`: preference pairs from samples, one command a builder; the stages are in `sightline.pairs`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Build preference pairs from samples."""


@app.command()
def bdhs(
    model: Annotated[Path, typer.Option(help="Directory of the model that is to be aligned.")],
    samples: Annotated[Path, typer.Option(help="Samples directory or JSONL file, with reference answers.")],
    out: Annotated[Path, typer.Option(help="Directory to write: a dataset that `datasets` and TRL open.")],
    config: Annotated[Path | None, typer.Option(help="YAML file of the BDHS config.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of masks, cuts and sampling.")] = 0,
) -> None:
    """Make the rejected answers with the model itself, most image tokens hidden (BDHS, arXiv 2407.02477).

    One number has no default: rho, the share of image tokens to hide. For example:
    sightline pairs bdhs --model DIR --samples DIR --out DIR --set rho=0.97
    """
    from sightline.config import load_config
    from sightline.data.progress import one_bar
    from sightline.pairs.bdhs import BDHSConfig
    from sightline.pairs.build import build_bdhs_dataset

    settings = load_config(BDHSConfig, config, overrides or ())
    with one_bar("pairs") as progress:
        manifest = build_bdhs_dataset(model, samples, out, settings, seed, progress)
    typer.echo(f"pairs: {out} ({manifest.counts['pairs']} kept, dropped {manifest.dropped or 'none'})")
