"""`sightline serve`: a model as a server of the OpenAI kind, with limits, log, feedback. The work is `apps.serve`."""

import importlib.util
import os
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
def serve(  # noqa: PLR0913 - one parameter an option
    model: Annotated[str, typer.Argument(help="Model directory, such as an exported one, or a hub id.")],
    host: Annotated[
        str, typer.Option(help="Address to listen at; anything but loopback lets others in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one and says which.")] = 8000,
    engine: Annotated[str, typer.Option(help="auto (vLLM where it is installed), vllm or transformers.")] = "auto",
    log: Annotated[Path | None, typer.Option(help="Directory of the request log; without it nothing is kept.")] = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="What requests and answers call the model; default: its directory or hub id.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE|FILE",
            help="Environment variable or file that holds the key clients must send; never the key itself.",
        ),
    ] = None,
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
    from sightline.apps.serve.run import ServerAddress
    from sightline.apps.serve.run import serve as run

    settings = load_config(ServeConfig, config, overrides or ())
    key = None if api_key is None else read_key(api_key)
    if served_model_name is not None and not (served_model_name.strip() and served_model_name.isprintable()):
        raise InputError(f"--served-model-name {served_model_name!r} is no name; use letters and digits")
    if host not in LOOPBACK and key is None:
        say(
            f"note: {host} is no loopback address; anyone who reaches it may use the model, since no --api-key is set",
            err=True,
        )
    place = ServerAddress(host, port, kind, name=served_model_name, api_key=key)

    def warn(line: str) -> None:
        say(line, err=True)

    try:
        run(model, place, settings, log, say, warn)
    except ServerEnded as ended:
        say(f"error: {ended}; it is not started again, and its last lines were:", err=True, red=True)
        for line in ended.lines:
            say(f"  {line}", err=True)
        raise typer.Exit(ENDED) from ended
    except KeyboardInterrupt:
        say("stopped")


def read_key(source: str) -> str:
    """The key in an environment variable of this name, or else in a file.

    Raises:
        InputError: there is neither, or no usable key in it.
    """
    if source in os.environ:
        key, where = os.environ[source].strip(), f"environment variable {source}"
    else:
        where = f"file {source}"
        try:
            key = Path(source).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise InputError(
                "--api-key names neither an environment variable that is set nor a file that can be read; "
                "put the key into one of them"
            ) from error
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"{where} holds no key; a key is one line of ASCII letters, digits and signs without blanks")
    return key
