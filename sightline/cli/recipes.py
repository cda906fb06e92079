"""`sightline compose`, `curate` and `match`: recipes of other papers; `sightline.recipes` does the work."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.early import Overrides, check_early
from sightline.cli.model_options import ELSEWHERE, opens_model
from sightline.config import MAX_SEED
from sightline.data.terminal import say
from sightline.models.spec import ModelSpec
from sightline.recipes.matching.steps import STEPS, Step

compose_app = typer.Typer()


@compose_app.command()
def compose(
    out: Annotated[Path, typer.Option(help="Directory to write: a model for eval, train and probe.")],
    config: Annotated[Path | None, typer.Option(help="YAML file of the config: members, merge, weights.")] = None,
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of merges with random dropping.")] = 0,
) -> None:
    """Merge models of several media that share a base language model into one (NaiveMC, DAMC).

    For example: sightline compose --out DIR --set members.picture.model=DIR --set members.picture.adapter=DIR
    --set members.sound.model=DIR --set members.sound.adapter=DIR
    """
    from sightline.config import load_config
    from sightline.recipes.composition.config import ComposeConfig

    settings = load_config(ComposeConfig, config, overrides or ())
    # torch takes seconds to import
    from sightline.recipes.composition.run import compose as run_stage

    directory = run_stage(settings, out, seed)
    say(f"model: {directory}")


curate_app = typer.Typer()


@curate_app.command()
@opens_model(required=False, help="Model for judges and writers that use one: a directory, a hub id, or lab.")
def curate(
    place: Annotated[Path, typer.Argument(help="Samples directory, or with --images, LLaVA-Instruct's JSON files.")],
    out: Annotated[Path, typer.Option(help="Directory to write: samples.jsonl, llava.json, scores.jsonl, images.")],
    config: Annotated[Path | None, typer.Option(help="YAML file of the config.")] = None,
    overrides: Overrides = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder that LLaVA-Instruct's image paths are relative to.")
    ] = None,
    model: ModelSpec | None = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of all random draws.")] = 0,
) -> None:
    """Keep the best share of each type of conversation, ranked by questions, then by answers.

    For example: sightline curate SAMPLES --out DIR --config sightline/lab/configs/curate.yaml
    """
    check_early("curate", config, overrides, samples=place, images=images)
    from sightline.config import load_config
    from sightline.data.terminal import one_bar
    from sightline.recipes.curation.config import CurateConfig
    from sightline.recipes.curation.run import Curation
    from sightline.recipes.curation.run import curate as run_stage

    request = Curation(
        place, load_config(CurateConfig, config, overrides or (), elsewhere=ELSEWHERE), images, model, seed
    )
    with one_bar("scores") as progress:
        manifest = run_stage(request, out, progress)
    counts = manifest.counts
    say(f"samples: {out} ({counts['kept']} of {counts['conversations']} conversations kept)")


match_app = typer.Typer(no_args_is_help=True)


@match_app.callback()
def _root() -> None:
    """Entity matching: read labelled pairs, explain, filter, generate and select them (TailorMatch)."""


def _command(name: str, step: Step) -> Callable[..., None]:
    def run(
        place: Annotated[Path, typer.Argument(help=step.place)],
        out: Annotated[Path, typer.Option(help="Directory to write: samples for `train`, and for `eval --data`.")],
        config: Annotated[Path | None, typer.Option(help="YAML file of the step's config.")] = None,
        overrides: Overrides = None,
        seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of all random draws.")] = 0,
    ) -> None:
        from sightline.config import load_config
        from sightline.data.terminal import one_bar

        settings = load_config(step.config, config, overrides or ())
        with one_bar(name) as progress:
            manifest = step.run(place, settings, seed, out, progress)
        say(f"samples: {out} ({manifest.counts['samples']} kept, dropped {manifest.dropped or 'none'})")

    run.__doc__ = step.help
    return run


for _name, _step in STEPS.items():
    match_app.command(_name)(_command(_name, _step))
