"""`sightline chat`: a talk with one model or two in a browser; the page is `sightline.apps.chat`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.config import MAX_SEED
from sightline.data.terminal import say

app = typer.Typer()


@app.command()
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
    from sightline.apps.chat.opening import Model, run_chat
    from sightline.apps.guard import Door

    models = [Model(model, adapter)]
    if beside is not None or beside_adapter is not None:
        models.append(Model(beside or model, beside_adapter))
    door = Door(host, port, max_bytes=settings.max_bytes + 2**20)

    def tell(line: str) -> None:
        say(line, err=True)

    run_chat(tuple(models), out, settings, rater=rater, seed=seed, door=door, tell=tell)
