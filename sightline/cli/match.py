"""`sightline match`: training rows for entity matching, one command a step of `sightline.pairs.matching`.

The commands are made from the table of steps, so that a new step needs no line here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sightline.config import MAX_SEED
from sightline.data.terminal import say
from sightline.pairs.matching.steps import STEPS, Step

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Entity matching: read labelled pairs, explain, filter, generate and select them (TailorMatch)."""


def _command(name: str, step: Step) -> Callable[..., None]:
    def run(
        place: Annotated[Path, typer.Argument(help=step.place)],
        out: Annotated[Path, typer.Option(help="Directory to write: samples for `train`, and for `eval --data`.")],
        config: Annotated[Path | None, typer.Option(help="YAML file of the step's config.")] = None,
        overrides: Annotated[
            list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
        ] = None,
        seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of everything that is drawn.")] = 0,
    ) -> None:
        from sightline.config import load_config
        from sightline.data.progress import one_bar

        settings = load_config(step.config, config, overrides or ())
        with one_bar(name) as progress:
            manifest = step.run(place, settings, seed, out, progress)
        say(f"samples: {out} ({manifest.counts['samples']} kept, dropped {manifest.dropped or 'none'})")

    run.__doc__ = step.help
    return run


for _name, _step in STEPS.items():
    app.command(_name)(_command(_name, _step))
