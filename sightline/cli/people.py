"""`sightline label` and `sightline chat`: web pages to compare answers and to chat with models.

The pages are in `sightline.apps`. With `--agreement` or `--grades`, `label` only reads the raters' files.
"""

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.early import Overrides
from sightline.cli.model_options import ELSEWHERE, opens_model
from sightline.config import MAX_SEED
from sightline.data.terminal import say
from sightline.errors import InputError
from sightline.models.spec import ModelSpec

label_app = typer.Typer()


@label_app.command()
def label(  # noqa: PLR0913 - one parameter an option
    dataset: Annotated[Path, typer.Argument(help="Directory of pairs, an evaluation, or labels.")],
    beside: Annotated[Path | None, typer.Option(help="Second evaluation, to compare answers with.")] = None,
    bench: Annotated[str | None, typer.Option(help="Benchmark to label, if the evaluations share several.")] = None,
    out: Annotated[Path | None, typer.Option(help="Labels directory (default: DATASET-labels).")] = None,
    host: Annotated[str, typer.Option(help="Address to serve at; non-loopback addresses let other machines in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 7861,
    agreement: Annotated[bool, typer.Option("--agreement", help="Print the raters' agreement and exit.")] = False,
    grades: Annotated[Path | None, typer.Option(help="Write the grades so far as JSONL for curate, and exit.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file: criteria, marks, corrections, limit.")] = None,
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the order of answers on the screen.")] = 0,
) -> None:
    """Compare the two answers of each pair, or of two models, in a browser; every choice is saved at once.

    For example: sightline label PAIRS_DIR --config criteria.yaml --set limit=200
    """
    from sightline.apps.label.items import ItemSource
    from sightline.apps.label.session import LabelConfig
    from sightline.config import load_config
    from sightline.data.labels import is_labels

    source = ItemSource((dataset,) if beside is None else (dataset, beside), bench)
    folder = out or (dataset if is_labels(dataset) else source.labels)
    if agreement or grades is not None:
        _print_results(folder, grades, agreement=agreement, seed=seed)
        return
    if folder == dataset:
        raise InputError(f"{dataset} is a labels directory; pass the labeled dataset, or add --agreement or --grades")
    from sightline.apps.guard import BindAddress
    from sightline.apps.label.page import run_label

    settings = load_config(LabelConfig, config, overrides or ())
    run_label(source, folder, settings, seed, BindAddress(host, port), lambda line: say(line, err=True))


def _print_results(folder: Path, grades: Path | None, *, agreement: bool, seed: int) -> None:
    from sightline.data.labels import read_grades
    from sightline.records import write_rows

    if grades is not None:
        count = write_rows(grades, read_grades(folder))
        say(f"grades: {grades} ({count} rows)")
    if agreement:
        from sightline.cli.report import print_agreement
        from sightline.evals.agreement import measure_agreement

        print_agreement(measure_agreement(folder, seed=seed))


chat_app = typer.Typer()


@chat_app.command()
@opens_model(argument=True)
def chat(  # noqa: PLR0913 - one parameter an option
    model: ModelSpec,
    beside: Annotated[
        str | None, typer.Option(help="A second model to show beside it; it is opened by the same options.")
    ] = None,
    beside_adapter: Annotated[
        Path | None, typer.Option(help="Adapter of the second model (without --beside: of the same model).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory for pictures and preferences.")] = Path("chat-labels"),
    rater: Annotated[str, typer.Option(help="Rater name for saved preferences.")] = "me",
    host: Annotated[str, typer.Option(help="Address to serve at; non-loopback addresses let other machines in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 7862,
    config: Annotated[Path | None, typer.Option(help="YAML file: sampling, limits, blind.")] = None,
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of sampled answers and of their sides.")] = 0,
) -> None:
    """Chat with a model, or with two side by side, about your pictures in a browser.

    For example: sightline chat MODEL_DIR --beside-adapter TRAIN_DIR/adapter --set blind=true
    """
    from sightline.apps.chat.config import ChatConfig
    from sightline.config import load_config

    settings = load_config(ChatConfig, config, overrides or (), elsewhere=ELSEWHERE)
    # torch takes seconds to import
    from sightline.apps.chat.launch import ChatModel, run_chat
    from sightline.apps.guard import BindAddress

    models = [ChatModel(model)]
    if beside is not None or beside_adapter is not None:
        other = model.with_options({"name": beside or model.name, "adapter": beside_adapter})
        other.check_name()
        models.append(ChatModel(other))
    address = BindAddress(host, port, max_bytes=settings.max_bytes + 2**20)

    def log(line: str) -> None:
        say(line, err=True)

    run_chat(tuple(models), out, settings, rater=rater, seed=seed, address=address, log=log)
