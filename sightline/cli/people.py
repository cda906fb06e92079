"""`sightline label`: people compare two answers in a browser; the page is `sightline.apps.label`.

With `--agreement` or `--grades` it opens no page and says what the raters' files hold so far.
"""

from pathlib import Path
from typing import Annotated

import typer

from sightline.config import MAX_SEED
from sightline.data.terminal import say
from sightline.errors import InputError

label_app = typer.Typer()


@label_app.command()
def label(  # noqa: PLR0913 - one parameter an option
    dataset: Annotated[Path, typer.Argument(help="Directory of pairs, or of an evaluation, or of labels.")],
    beside: Annotated[Path | None, typer.Option(help="A second evaluation, whose answers stand beside.")] = None,
    bench: Annotated[str | None, typer.Option(help="Which benchmark of the two evaluations.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of labels; DATASET-labels by default.")] = None,
    host: Annotated[str, typer.Option(help="Address to serve at; others than this machine's let others in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7861,
    agreement: Annotated[bool, typer.Option("--agreement", help="Print how far raters agree, and end.")] = False,
    grades: Annotated[Path | None, typer.Option(help="Write the grades so far as JSONL for curate, and end.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file: criteria, marks, corrections, limit.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the answers' order on the screen.")] = 0,
) -> None:
    """Compare the two answers of each pair, or of two models, in a browser on this machine; saved row by row.

    For example: sightline label PAIRS_DIR --config criteria.yaml --set limit=200
    """
    from sightline.apps.label.items import ItemSource
    from sightline.apps.label.session import LabelConfig
    from sightline.config import load_config
    from sightline.data.labels import is_labels

    source = ItemSource((dataset,) if beside is None else (dataset, beside), bench)
    folder = out or (dataset if is_labels(dataset) else source.labels)
    if agreement or grades is not None:
        _tell_of(folder, grades, agreement=agreement, seed=seed)
        return
    if folder == dataset:
        raise InputError(f"{dataset} holds labels already; name what was labeled, or ask for --agreement or --grades")
    from sightline.apps.guard import BindAddress
    from sightline.apps.label.page import run_label

    settings = load_config(LabelConfig, config, overrides or ())
    run_label(source, folder, settings, seed, BindAddress(host, port), lambda line: say(line, err=True))


def _tell_of(folder: Path, grades: Path | None, *, agreement: bool, seed: int) -> None:
    from sightline.data.labels import read_grades
    from sightline.records import write_rows

    if grades is not None:
        count = write_rows(grades, read_grades(folder))
        say(f"grades: {grades} ({count} rows)")
    if agreement:
        from sightline.cli.table import print_agreement
        from sightline.evals.agreement import measure_agreement

        print_agreement(measure_agreement(folder, seed=seed))


chat_app = typer.Typer()


@chat_app.command()
def chat(  # noqa: PLR0913 - one parameter an option
    model: Annotated[Path, typer.Argument(help="Directory of the model.")],
    adapter: Annotated[Path | None, typer.Option(help="Directory of its adapter.")] = None,
    beside: Annotated[Path | None, typer.Option(help="Directory of a model that answers beside it.")] = None,
    beside_adapter: Annotated[
        Path | None, typer.Option(help="The other's adapter; alone, the same model answers with it.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory of pictures and preferences.")] = Path("chat-labels"),
    rater: Annotated[str, typer.Option(help="Name that preferences are kept under.")] = "me",
    host: Annotated[str, typer.Option(help="Address to serve at; others than this machine's let others in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7862,
    config: Annotated[Path | None, typer.Option(help="YAML file: sampling, limits, blind.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of sampled answers and of their sides.")] = 0,
) -> None:
    """Ask a model, or two beside each other, about your pictures, in a browser on this machine.

    For example: sightline chat MODEL_DIR --beside-adapter TRAIN_DIR/adapter --set blind=true
    """
    from sightline.apps.chat.config import ChatConfig
    from sightline.config import load_config

    settings = load_config(ChatConfig, config, overrides or ())
    # torch takes seconds to import, which help and mistakes should not
    from sightline.apps.chat.launch import ChatModel, run_chat
    from sightline.apps.guard import BindAddress

    models = [ChatModel(model, adapter)]
    if beside is not None or beside_adapter is not None:
        models.append(ChatModel(beside or model, beside_adapter))
    door = BindAddress(host, port, max_bytes=settings.max_bytes + 2**20)

    def tell(line: str) -> None:
        say(line, err=True)

    run_chat(tuple(models), out, settings, rater=rater, seed=seed, door=door, tell=tell)
