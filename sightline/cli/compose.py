"""`sightline compose`: one model that takes the media of several, from models that share a language model.

It reads the command line and prints where the result lies; the stage itself is `sightline.models.compose.run`.
"""

from pathlib import Path
from typing import Annotated

import typer

from sightline.config import MAX_SEED
from sightline.data.terminal import say

app = typer.Typer()


@app.command()
def compose(
    out: Annotated[Path, typer.Option(help="Directory to write: a model that eval, train and probe open.")],
    config: Annotated[Path | None, typer.Option(help="YAML file of the config: members, merge, weights.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of merges that drop at random.")] = 0,
) -> None:
    """Compose models of several kinds of media that share a base language model into one (NaiveMC, DAMC).

    For example: sightline compose --out DIR --set members.picture.model=DIR --set members.picture.adapter=DIR
    --set members.sound.model=DIR --set members.sound.adapter=DIR
    """
    from sightline.config import load_config
    from sightline.models.compose.config import ComposeConfig

    settings = load_config(ComposeConfig, config, overrides or ())
    # torch takes seconds to import, which help and mistakes should not
    from sightline.models.compose.run import compose as run_stage

    directory = run_stage(settings, out, seed)
    say(f"model: {directory}")
