"""`sightline serve`: a model's server and the door before it, until somebody stops it or the server ends by itself."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import uvicorn

from sightline.apps.connections import BACKLOG, ConnectionLimits, limited_protocol
from sightline.apps.serve.config import ServeConfig
from sightline.apps.serve.engine import Kind, ServerProcess, code_text, command_of, free_port, resolved
from sightline.apps.serve.proxy import LOOPBACK, ProxyConfig, build_app
from sightline.data.request_log import RequestLog
from sightline.errors import InputError
from sightline.records.store import private_umask

Say = Callable[[str], None]
_LOOK_EVERY = 0.2  # seconds


@dataclass(frozen=True)
class ServerAddress:
    """Where the door is, and what stands behind it; `more` are arguments for the server.

    `name` is what the model is called in requests and answers (None: by its directory or hub id); who asks must know
    `api_key`, if there is one.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    engine: Kind = "auto"
    more: tuple[str, ...] = ()
    name: str | None = None
    api_key: str | None = field(default=None, repr=False)


def serve(model: str, place: ServerAddress, config: ServeConfig, log: Path | None, say: Say, warn: Say) -> None:
    """Serve a model until the process is told to stop; `say` hears where it is, once it is ready, `warn` what fails.

    Raises:
        InputError: the model is no model, the port is taken, or it was not ready in time.
        ServerEnded: the server ended by itself, before it was ready or after.
        KeyboardInterrupt: somebody stopped it.
    """
    source = _source(model)
    name = place.name or _name(source)
    with contextlib.closing(_listen(place)) as listening, _stopped_by_term(), private_umask() as umask:
        port = free_port()
        kept = None if log is None else RequestLog(log, int(config.file_mb * 2**20))
        kind = resolved(place.engine)
        engine = ServerProcess(command_of(kind, source, port, config, place.more, name=name), port, umask=umask)
        door = ProxyConfig(
            engine.url,
            name,
            config,
            _gone(engine),
            kept,
            LOOPBACK if place.host in LOOPBACK else ("*",),
            upstream=name if kind == "vllm" else source,
            by_stream=kind == "transformers",
            api_key=place.api_key,
            warn=warn,
        )
        try:
            engine.wait_ready(is_healthy, config.wait)
            host, bound = listening.getsockname()[:2]
            where = f"http://{f'[{host}]' if ':' in host else host}:{bound}/v1"
            asyncio.run(_hold(engine, door, listening, lambda: say(f"serving {name} at {where}")))
        finally:
            engine.stop()


def is_healthy(url: str) -> bool:
    """Whether the server at `url` says that it is ready."""
    try:
        return httpx2.get(f"{url}/health", timeout=5, trust_env=False, verify=False).status_code == 200
    except httpx2.HTTPError:
        return False


async def _hold(engine: ServerProcess, door: ProxyConfig, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Answer until Ctrl-C or a signal ends it, or the server behind the door does."""
    server = uvicorn.Server(server_settings(door))

    async def watch() -> None:
        while not server.started:
            await asyncio.sleep(0.02)
        ready()
        while engine.code() is None:
            await asyncio.sleep(_LOOK_EVERY)
        server.should_exit = True

    # The server stands in the main task: uvicorn raises the signal that stopped it again, and here it is heard.
    watching = asyncio.create_task(watch())
    try:
        await server.serve(sockets=[listening])
    finally:
        watching.cancel()
    if (ended := engine.ended()) is not None:
        raise ended


def server_settings(door: ProxyConfig) -> uvicorn.Config:
    """How the door is served: with limits of its connections, and as HTTP alone."""
    config = door.config
    limits = ConnectionLimits(config.max_connections, config.header_seconds, config.body_seconds, config.body_seconds)
    return uvicorn.Config(
        build_app(door),
        http=limited_protocol(limits),
        backlog=BACKLOG,
        ws="none",
        log_level="warning",
        timeout_graceful_shutdown=5,
        server_header=False,
        proxy_headers=False,
    )


def _name(source: str) -> str:
    """What a model is called where nobody says: the name of its directory, or its hub id."""
    return Path(source).name if Path(source).is_absolute() else source


def _source(model: str) -> str:
    """The model as its server is told: a directory's full path, or a hub id.

    Raises:
        InputError: it is neither.
    """
    found = Path(model)
    if found.is_dir():
        if not (found / "config.json").is_file():
            raise InputError(f"{model} is not a model directory: it has no config.json")
        return str(found.resolve())
    if found.exists() or model.count("/") != 1 or model.startswith((".", "/", "~")) or found.parent.exists():
        raise InputError(f"model {model} does not exist; name a model directory or a hub id such as owner/name")
    return model


def _listen(place: ServerAddress) -> socket.socket:
    """The door's socket, taken before the model is loaded: a port in use is known at once."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        return socket.create_server((place.host, place.port), family=family)
    except OSError as error:
        raise InputError(
            f"{place.host}:{place.port} cannot be bound ({os.strerror(error.errno or 0)}); choose another --port"
        ) from error


def _gone(engine: ServerProcess) -> Callable[[], str | None]:
    def gone() -> str | None:
        code = engine.code()
        return None if code is None else f"the model's server ended with {code_text(code)}"

    return gone


@contextlib.contextmanager
def _stopped_by_term() -> Iterator[None]:
    """SIGTERM ends this as Ctrl-C does, so that the server behind the door is ended as well."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, __: types.FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
