"""`sightline export`: pairs in a peer's layout, one command a layout, and a model made ready to be deployed.

The work is `sightline.data.formats.exporting` and `sightline.apps.export`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.early import check_places
from sightline.config import load_config
from sightline.data.formats.exporting import TARGETS, export_pairs
from sightline.data.progress import one_bar
from sightline.data.terminal import say

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Write preference pairs for another trainer, or a model for a server."""


def _command(layout: str) -> Callable[..., None]:
    def run(
        pairs: Annotated[Path, typer.Argument(help="Directory of pairs.")],
        out: Annotated[Path, typer.Option(help="Directory to write, images included.")],
    ) -> None:
        with one_bar("pairs") as progress:
            manifest = export_pairs(layout, pairs, out, progress)
        say(f"{manifest.stage}: {out} ({manifest.counts['pairs']} pairs)")

    run.__doc__ = f"Write pairs for {layout}: {TARGETS[layout].summary}."
    return run


for _name in TARGETS:
    app.command(_name)(_command(_name))


@app.command()
def model(  # noqa: PLR0913 - one parameter an option
    model: Annotated[Path, typer.Argument(help="Model directory.")],
    out: Annotated[Path, typer.Option(help="Directory to write: weights, processor, card, checksums.")],
    adapter: Annotated[Path | None, typer.Option(help="PEFT adapter to merge, such as TRAIN_DIR/adapter.")] = None,
    train: Annotated[Path | None, typer.Option(help="Training directory for the card [around the adapter].")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Directory of pairs for the card.")] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option("--eval", help="Evaluation directory for the card; may be repeated.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Directory of a report for the card.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of the export.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
) -> None:
    """Merge an adapter, round or quantize the weights, and write them with card, checksums and a check.

    For example: sightline export model MODEL --adapter TRAIN_DIR/adapter --out DIR --set weights=int8
    """
    from sightline.apps.export.config import ExportModelConfig

    settings = load_config(ExportModelConfig, config, overrides or ())
    check_places(model=model, adapter=adapter, train=train, pairs=pairs, report=report)
    for directory in evaluation or ():
        check_places(eval=directory)
    # torch takes seconds to import, which help and mistakes should not
    from sightline.apps.export.run import Told, export_model

    told = Told(train, pairs, tuple(evaluation or ()), report)
    numbers = export_model(model, out, settings, adapter, told).numbers
    change = (
        f"log-probs {numbers['changed_mean']:.2g} nats a token from float32, {numbers['changed_largest']:.2g} at most"
    )
    say(f"export model: {out} ({settings.weights}, {numbers['bytes'] / 2**20:.1f} MiB, {change})")
