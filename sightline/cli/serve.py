"""`sightline serve`: a model as a server of the OpenAI kind, with limits, log, feedback. The work is `apps.serve`."""

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

import typer

from sightline.config import load_config
from sightline.data.terminal import say
from sightline.errors import InputError

app = typer.Typer()

KINDS: tuple[Literal["auto", "vllm", "transformers"], ...] = ("auto", "vllm", "transformers")
ENDED = 1  # the exit code where the model's server ended by itself


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="Model directory, such as an exported one, or a hub id.")],
    host: Annotated[
        str, typer.Option(help="Address to listen at; anything but loopback lets others in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one and says which.")] = 8000,
    engine: Annotated[str, typer.Option(help="auto (vLLM where it is installed), vllm or transformers.")] = "auto",
    log: Annotated[Path | None, typer.Option(help="Directory of the request log; without it nothing is kept.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of limits and of what is logged.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
) -> None:
    """Serve a model on loopback until it is stopped; POST /v1/chat/completions, POST /feedback, GET /health.

    For example: sightline serve MODEL_DIR --log LOG_DIR --set keep_images=true
    """
    needed = ("fastapi", "httpx2", "openai", "uvicorn")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise InputError(f"serving needs {', '.join(missing)}; pip install 'sightline[serve]'")
    kind = next((one for one in KINDS if one == engine), None)
    if kind is None:
        raise InputError(f"--engine {engine!r} is unknown; choose auto, vllm or transformers")
    from sightline.apps.serve.config import ServeConfig
    from sightline.apps.serve.engine import ServerEnded
    from sightline.apps.serve.proxy import LOOPBACK
    from sightline.apps.serve.run import Place
    from sightline.apps.serve.run import serve as run

    settings = load_config(ServeConfig, config, overrides or ())
    if host not in LOOPBACK:
        say(f"note: {host} is no loopback address; who reaches it may ask the model, unasked for a key", err=True)
    try:
        run(model, Place(host, port, kind), settings, log, say)
    except ServerEnded as ended:
        say(f"error: {ended}; it is not started again, and its last lines were:", err=True, red=True)
        for line in ended.lines:
            say(f"  {line}", err=True)
        raise typer.Exit(ENDED) from ended
    except KeyboardInterrupt:
        say("stopped")
