"""`sightline curate`: keep the best of instruction data; the work is `sightline.pairs.curation`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.early import check_early
from sightline.config import MAX_SEED
from sightline.data.terminal import say

app = typer.Typer()


@app.command()
def curate(
    place: Annotated[Path, typer.Argument(help="Samples directory, or with --images LLaVA-Instruct's own JSON files.")],
    out: Annotated[Path, typer.Option(help="Directory to write: samples.jsonl, llava.json, scores.jsonl, images.")],
    config: Annotated[Path | None, typer.Option(help="YAML file of the config.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder that LLaVA-Instruct's image paths are below.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model, for judges and writers that ask it.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of what is drawn.")] = 0,
) -> None:
    """Rank conversations by their questions, what is left by its answers, and keep the best share of each type.

    For example: sightline curate SAMPLES --out DIR --config sightline/lab/configs/curate.yaml
    """
    check_early("curate", config, overrides, samples=place, images=images, model=model)
    from sightline.config import load_config
    from sightline.data.progress import one_bar
    from sightline.pairs.curation.config import CurateConfig
    from sightline.pairs.curation.run import Curation
    from sightline.pairs.curation.run import curate as run_stage

    asked = Curation(place, load_config(CurateConfig, config, overrides or ()), images, model, seed)
    with one_bar("scores") as progress:
        manifest = run_stage(asked, out, progress)
    counts = manifest.counts
    say(f"samples: {out} ({counts['kept']} of {counts['conversations']} conversations kept)")
