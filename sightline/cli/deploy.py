"""`sightline serve`: an OpenAI-compatible server with limits, log and feedback; `apps.serve` does the work."""

import importlib.util
import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from sightline.cli.early import Overrides
from sightline.cli.model_options import ELSEWHERE, opens_model
from sightline.config import load_config
from sightline.data.terminal import Screen, say
from sightline.errors import InputError
from sightline.models.spec import ModelSpec
from sightline.report.formatting import value_text

serve_app = typer.Typer()

KINDS: tuple[Literal["auto", "vllm", "transformers"], ...] = ("auto", "vllm", "transformers")
#: The engine's arguments that Sightline sets, and what to use instead.
_OWN_ARGUMENTS = {
    "--host": "the engine listens on loopback only; use --host of this command for the proxy's address",
    "--port": "the engine's port is chosen; use --port of this command for the proxy's",
    "--served-model-name": "use --served-model-name of this command",
    "--dtype": "use --set dtype=...",
    "--device": "use --set device=...",
    "--api-key": "use --api-key of this command",
}
ENDED = 1  # exit code if the model server ended on its own


@serve_app.command()
def serve(  # noqa: PLR0913 - one parameter an option
    model: Annotated[str, typer.Argument(help="Model directory, such as an exported one, or a hub id.")],
    host: Annotated[
        str, typer.Option(help="Address to listen at; non-loopback addresses let other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 8000,
    engine: Annotated[str, typer.Option(help="auto (vLLM if installed), vllm or transformers.")] = "auto",
    log: Annotated[Path | None, typer.Option(help="Directory of the request log (default: none).")] = None,
    served_model_name: Annotated[
        str | None, typer.Option(help="Model name in requests and answers (default: its directory or hub id).")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE|FILE",
            help="Environment variable or file with the key that clients must send; never the key itself.",
        ),
    ] = None,
    engine_args: Annotated[
        str | None,
        typer.Option(help='More arguments for the engine, quoted as one: "--max-model-len 8192 --enforce-eager".'),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of the server config: limits, logging.")] = None,
    overrides: Overrides = None,
) -> None:
    """Serve a model until stopped: POST /v1/chat/completions, POST /feedback, GET /health.

    For example: sightline serve MODEL_DIR --log LOG_DIR --set keep_images=true
    """
    needed = ("fastapi", "httpx2", "openai", "uvicorn")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise InputError(f"serving needs {', '.join(missing)}; install with: pip install 'sightline[serve]'")
    kind = next((one for one in KINDS if one == engine), None)
    if kind is None:
        raise InputError(f"--engine {engine!r} is unknown; choose auto, vllm or transformers")
    from sightline.apps.guard import LOOPBACK
    from sightline.apps.serve.config import ServeConfig
    from sightline.apps.serve.engine import ServerEnded
    from sightline.apps.serve.run import ServerAddress
    from sightline.apps.serve.run import serve as run

    settings = load_config(ServeConfig, config, overrides or ())
    key = None if api_key is None else read_key(api_key)
    if served_model_name is not None and not (served_model_name.strip() and served_model_name.isprintable()):
        raise InputError(f"--served-model-name {served_model_name!r} is not a valid name; use letters and digits")
    if host not in LOOPBACK and key is None:
        say(
            f"note: {host} is not a loopback address; without --api-key anyone who can reach it can use the model",
            err=True,
        )
    more = () if engine_args is None else split_engine_args(engine_args)
    place = ServerAddress(host, port, kind, more, served_model_name, key)

    def warn(line: str) -> None:
        say(line, err=True)

    try:
        run(model, place, settings, log, say, warn)
    except ServerEnded as ended:
        say(f"error: {ended}; it is not restarted. Its last lines were:", err=True, red=True)
        for line in ended.lines:
            say(f"  {line}", err=True)
        raise typer.Exit(ENDED) from ended
    except KeyboardInterrupt:
        say("stopped")


def split_engine_args(text: str) -> tuple[str, ...]:
    """The engine's extra arguments, split as a shell would.

    Raises:
        InputError: a quote is not closed, or an argument is one that Sightline sets itself.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise InputError(f"--engine-args {text!r} cannot be split into arguments ({error}); close the quote") from error
    for word in words:
        if word.partition("=")[0] in _OWN_ARGUMENTS:
            raise InputError(f"--engine-args may not contain {word}: {_OWN_ARGUMENTS[word.partition('=')[0]]}")
    return words


def read_key(source: str) -> str:
    """Read the key from an environment variable of this name, else from a file.

    Raises:
        InputError: there is neither, or it holds no usable key.
    """
    if source in os.environ:
        key, where = os.environ[source].strip(), f"environment variable {source}"
    else:
        where = f"file {source}"
        try:
            key = Path(source).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise InputError(
                "--api-key names neither a set environment variable nor a readable file; put the key into one of them"
            ) from error
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"{where} holds no key; a key is one line of printable ASCII without spaces")
    return key


monitor_app = typer.Typer()

ALARM = 1


@monitor_app.command()
@opens_model(required=False, help="Model for judges that use one: a directory, a hub id, or lab.")
def monitor(  # noqa: PLR0913 - one parameter an option
    log: Annotated[Path, typer.Argument(help="Log directory of `sightline serve --log`.")],
    baseline: Annotated[Path, typer.Option(help="Baseline: another log, or an evaluation directory.")],
    out: Annotated[Path, typer.Option(help="Directory to write: state, monitor.json, monitor.html.")],
    judge: Annotated[Path | None, typer.Option(help="YAML file of a judge for a sample of the answers.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Samples with ground truth of the pictures, for judges that use it.")
    ] = None,
    model: ModelSpec | None = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of the monitor config.")] = None,
    overrides: Overrides = None,
) -> None:
    """Test the new rows of a log for drift against a baseline; exits with code 1 if there is drift.

    For example: sightline monitor LOG_DIR --baseline EVAL_DIR --out WATCH_DIR
    """
    from sightline.apps.monitor.run import PAGE, MonitorConfig
    from sightline.apps.monitor.run import monitor as run
    from sightline.records.hashing import hash_json

    settings = load_config(MonitorConfig, config, overrides or (), elsewhere=ELSEWHERE)
    sampler, key = None, ""
    if judge is not None:
        from sightline.apps.monitor.baseline import evaluation_samples
        from sightline.apps.monitor.judging import SampledJudge, Sampler, Truth

        sampled = load_config(SampledJudge, judge)
        known = Truth.read(truth)
        known.add((sample, folder) for _, sample, folder in evaluation_samples(baseline, settings.benchmarks))
        sampler = Sampler(sampled, known, model, out / "work", settings.seed)
        key = hash_json([sampled.model_dump(mode="json", exclude={"batch_size", "most"}), sampler.identity])
    elif truth is not None or model is not None:
        raise InputError("--truth and --model need a judge; add --judge, or leave them out")
    found = run(log, baseline, out, settings, sampler, key)
    table = Table("number", "baseline", "since", "n", "evidence", "state")
    for one in found.findings:
        values = (value_text(one.baseline, one.kind), value_text(one.now, one.kind), str(one.n))
        evidence = f"{one.evidence:.3g} of {one.bar:.0f}"
        table.add_row(one.title, *values, evidence, one.state, style="red" if one.state == "alarm" else None)
    Screen().print(table)
    say(f"monitor: {out / PAGE} ({found.new_rows} new rows, {len(found.alarms)} alarms)")
    if found.alarms:
        raise typer.Exit(ALARM)
