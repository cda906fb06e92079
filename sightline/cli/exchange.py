"""`sightline import`: published and peers' layouts into records of ours; the work is `sightline.data.formats`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from sightline.cli.early import check_places
from sightline.config import load_config
from sightline.data import hub
from sightline.data.formats.exporting import TARGETS, export_pairs
from sightline.data.formats.registry import AUTO, LAYOUTS
from sightline.data.terminal import one_bar, say

import_app = typer.Typer()

_EPILOG = "Layouts: " + "; ".join(f"{layout.name}: {layout.summary}" for layout in LAYOUTS.values())


@import_app.command("import", epilog=_EPILOG)
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
    from sightline.data.formats.importing import ImportRequest, import_layout
    from sightline.data.formats.layout import LayoutConfig
    from sightline.data.terminal import one_bar

    read = load_config(LayoutConfig, None, overrides or ())
    request = ImportRequest(place, layout, images, prefix, skip_bad, read)
    with one_bar("rows") as progress:
        manifest = import_layout(request, out, progress)
    made = ", ".join(f"{count} {name}" for name, count in manifest.counts.items())
    say(f"{manifest.stage}: {out} ({made}, dropped {manifest.dropped or 'none'})")


export_app = typer.Typer(no_args_is_help=True)


@export_app.callback()
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
    export_app.command(_name)(_command(_name))


@export_app.command()
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
    from sightline.apps.export.run import ExportRequest, export_model

    told = ExportRequest(train, pairs, tuple(evaluation or ()), report)
    numbers = export_model(model, out, settings, adapter, told).numbers
    change = (
        f"log-probs {numbers['changed_mean']:.2g} nats a token from float32, {numbers['changed_largest']:.2g} at most"
    )
    say(f"export model: {out} ({settings.weights}, {numbers['bytes'] / 2**20:.1f} MiB, {change})")


fetch_app = typer.Typer()


@fetch_app.command()
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
        manifest = hub.fetch_package(load_config(hub.PackageConfig, None, asked), out)
    else:
        told = [f"type={type}", f"hub={name}", *([f"revision={revision}"] if revision is not None else [])]
        manifest = hub.fetch(load_config(hub.FetchConfig, None, told), out)
    say(f"{type}: {out} ({manifest.counts['files']} files, {manifest.numbers['bytes'] / 1e9:.2f} GB)")
