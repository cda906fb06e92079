"""`sightline train`: train a model on preference pairs or by rewards; `sightline.train.run` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.early import Overrides, check_early
from sightline.cli.model_options import ELSEWHERE, opens_model
from sightline.config import MAX_SEED
from sightline.data.terminal import say
from sightline.models.spec import ModelSpec

app = typer.Typer()


@app.command()
@opens_model(adapter=False, help="The model to start from: a directory, a hub id such as owner/name, or lab.")
def train(
    model: ModelSpec,
    out: Annotated[Path, typer.Option(help="Directory to write: adapter/, log.jsonl, manifest.json.")],
    pairs: Annotated[
        Path | None, typer.Option(help="Directory of preference pairs; with rl, of pairs or samples.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(help="Samples to answer online, or those that --pairs were built from.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of the training config.")] = None,
    overrides: Overrides = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of the adapter, the order of pairs, and dropout.")
    ] = 0,
) -> None:
    """Train a LoRA adapter on preference pairs; an interrupted run resumes.

    Three numbers have no default: loss.beta, optim.lr, and epochs or max_steps. For example:
    sightline train --model DIR --pairs DIR --out DIR --set loss.name=dpo --set loss.beta=0.1 --set optim.lr=1e-4
    --set epochs=1
    """
    check_early("train", config, overrides, pairs=pairs, samples=samples)
    # torch takes seconds to import
    from sightline.config import load_config
    from sightline.train.config import TrainConfig
    from sightline.train.run import train as run_stage

    directory = run_stage(
        model, pairs, out, load_config(TrainConfig, config, overrides or (), elsewhere=ELSEWHERE), seed, samples
    )
    kind = next(name for name in ("adapter", "model") if (directory / name).is_dir())
    say(f"{kind}: {directory / kind}")
