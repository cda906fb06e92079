"""`sightline serve`: run the model server and the proxy until they are stopped or the server ends."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2
import uvicorn

from sightline.apps.connections import BACKLOG, ConnectionLimits, limited_protocol
from sightline.apps.guard import LOOPBACK
from sightline.apps.serve.config import ServeConfig
from sightline.apps.serve.engine import (
    Kind,
    ServerProcess,
    code_text,
    find_template,
    free_port,
    renders_system_as_answer,
    resolve_engine,
    server_command,
)
from sightline.apps.serve.proxy import ProxyConfig, build_app
from sightline.data.request_log import RequestLog
from sightline.errors import InputError
from sightline.models.spec import local_place
from sightline.records.store import private_umask

Say = Callable[[str], None]
_LOOK_EVERY = 0.2  # seconds


@dataclass(frozen=True)
class ServerAddress:
    """The proxy's address, and the engine behind it; `more` are extra arguments for the model server.

    `name` is the model's name in requests and answers (None: its directory or hub id); clients must send `api_key` if
    it is set.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    engine: Kind = "auto"
    more: tuple[str, ...] = ()
    name: str | None = None
    api_key: str | None = field(default=None, repr=False)


def serve(model: str, place: ServerAddress, config: ServeConfig, log: Path | None, say: Say, warn: Say) -> None:
    """Serve a model until stopped; `say` gets the URL once it is ready, `warn` gets failures.

    Raises:
        InputError: the model does not exist, the port is in use, or the model was not ready in time.
        ServerEnded: the model server ended on its own.
        KeyboardInterrupt: the user stopped it.
    """
    source = _source(model)
    name = place.name or _name(source)
    with contextlib.closing(_listen(place)) as listening, _sigterm_as_interrupt(), private_umask() as umask:
        port = free_port()
        kept = None if log is None else RequestLog(log, int(config.file_mb * 2**20))
        kind = resolve_engine(place.engine)
        engine = ServerProcess(server_command(kind, source, port, config, place.more, name=name), port, umask=umask)
        proxy = ProxyConfig(
            engine.url,
            name,
            config,
            _failure_check(engine),
            kept,
            LOOPBACK if place.host in LOOPBACK else ("*",),
            upstream=name if kind == "vllm" else source,
            by_stream=kind == "transformers",
            api_key=place.api_key,
            warn=warn,
        )
        try:
            engine.wait_ready(is_healthy, config.wait)
            template = find_template(source, place.more)  # a hub model's files are in the cache now
            proxy = replace(proxy, merges_system=template is not None and renders_system_as_answer(template))
            host, bound = listening.getsockname()[:2]
            where = f"http://{f'[{host}]' if ':' in host else host}:{bound}/v1"
            asyncio.run(_serve_until_stopped(engine, proxy, listening, lambda: say(f"serving {name} at {where}")))
        finally:
            engine.stop()


def is_healthy(url: str) -> bool:
    """Whether the server at `url` reports that it is ready."""
    try:
        return httpx2.get(f"{url}/health", timeout=5, trust_env=False, verify=False).status_code == 200
    except httpx2.HTTPError:
        return False


async def _serve_until_stopped(
    engine: ServerProcess, proxy: ProxyConfig, listening: socket.socket, ready: Callable[[], None]
) -> None:
    """Serve until Ctrl-C, a signal, or the end of the model server."""
    server = uvicorn.Server(server_settings(proxy))

    async def watch() -> None:
        while not server.started:
            await asyncio.sleep(0.02)
        ready()
        while engine.code() is None:
            await asyncio.sleep(_LOOK_EVERY)
        server.should_exit = True

    # The server runs in the main task: uvicorn re-raises the signal that stopped it, and it must arrive here.
    watching = asyncio.create_task(watch())
    try:
        await server.serve(sockets=[listening])
    finally:
        watching.cancel()
    if (ended := engine.ended()) is not None:
        raise ended


def server_settings(proxy: ProxyConfig) -> uvicorn.Config:
    """The uvicorn settings of the proxy: connection limits, plain HTTP."""
    config = proxy.config
    limits = ConnectionLimits(config.max_connections, config.header_seconds, config.body_seconds, config.body_seconds)
    return uvicorn.Config(
        build_app(proxy),
        http=limited_protocol(limits),
        backlog=BACKLOG,
        ws="none",
        log_level="warning",
        timeout_graceful_shutdown=5,
        server_header=False,
        proxy_headers=False,
    )


def _name(source: str) -> str:
    """The default name of a model: its directory's name, or its hub id."""
    return Path(source).name if Path(source).is_absolute() else source


def _source(model: str) -> str:
    """The model argument for the server: an absolute directory (that of `lab`, too), or a hub id.

    Raises:
        InputError: the model is neither.
    """
    found = local_place(model)
    if found.is_dir():
        if not (found / "config.json").is_file():
            raise InputError(f"{model} is not a model directory: it has no config.json")
        return str(found.resolve())
    if found.exists() or model.count("/") != 1 or model.startswith((".", "/", "~")) or found.parent.exists():
        raise InputError(f"model {model} does not exist; name a model directory or a hub id such as owner/name")
    return model


def _listen(place: ServerAddress) -> socket.socket:
    """The proxy's socket, opened before the model loads so that a port in use is reported at once."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        return socket.create_server((place.host, place.port), family=family)
    except OSError as error:
        raise InputError(
            f"{place.host}:{place.port} cannot be bound ({os.strerror(error.errno or 0)}); choose another --port"
        ) from error


def _failure_check(engine: ServerProcess) -> Callable[[], str | None]:
    def failure_text() -> str | None:
        code = engine.code()
        return None if code is None else f"the model server ended with {code_text(code)}"

    return failure_text


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that the model server is stopped too."""
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
