"""A Gradio page on this machine: what it needs, who may reach it, and how long it is served.

It knows no page; `label` and `chat` build theirs and hand it over. Nothing is asked of the network: Gradio's telemetry
is off, fonts are the system's, and a content policy keeps the browser from loading anything from elsewhere.
"""

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sightline.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MEGABYTE = 2**20

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio makes its components' code so
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]


@dataclass(frozen=True)
class Door:
    """Where a page is served, and the most bytes that one request to it may have."""

    host: str = "127.0.0.1"
    port: int = 0
    max_bytes: int = 32 * MEGABYTE

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine reach it."""
        return self.host in LOOPBACK


def gradio_quietly(scratch: Path) -> Any:
    """The module `gradio`, told to call nobody and to keep what is uploaded in `scratch`.

    Raises:
        InputError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(scratch)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        return import_module("gradio")
    except ImportError as error:
        raise InputError("pages need Gradio; install it with: pip install 'sightline[app]'") from error


def themed(gradio: Any) -> Any:
    """The pages' theme: the system's own fonts, which no server is asked for."""
    plain, fixed = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gradio.themes.Base(primary_hue="teal", neutral_hue="slate", font=plain, font_mono=fixed)


def page_file(name: str) -> str:
    """The text of a file of this room, such as `label/page.js`."""
    return files("sightline.apps").joinpath(name).read_text(encoding="utf-8")


def guarded(gradio: Any, blocks: Any, door: Door, *, css: str, title: str) -> Any:
    """The ASGI application of a page behind its `Guard`."""
    from fastapi import FastAPI

    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=door.host,
        server_port=door.port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=door.max_bytes,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        theme=themed(gradio),
        css=page_file("page.css") + css,
    )
    return Guard(app, door)


def open_door(door: Door) -> socket.socket:
    """A socket that listens there.

    Raises:
        InputError: the port is taken, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in door.host else socket.AF_INET
    try:
        return socket.create_server((door.host, door.port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{door.host} port {door.port} cannot be opened ({reason}); choose another --port or --host"
        ) from error


def serve(
    app: Any, door: Door, listening: socket.socket, *, name: str, scratch: Path, tell: Callable[[str], None]
) -> None:
    """Serve until Ctrl-C; `tell` gets the address, and a warning where others can reach it. `scratch` is emptied."""
    import uvicorn

    host = f"[{door.host}]" if ":" in door.host else door.host
    if not door.is_local:
        tell(
            f"warning: {door.host} can be reached from other machines, and whoever reaches this page can use it "
            "under any name; without --host only this machine can"
        )
    tell(f"{name}: http://{host}:{listening.getsockname()[1]} (Ctrl-C ends it; what was saved stays)")
    config = uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=2)
    shutil.rmtree(scratch, ignore_errors=True)  # what an earlier server that was killed left
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class Guard:
    """Refuses what a page's own browser would not send, and says what a browser may load.

    A local server can be reached by any web site that its user visits: through a name that is turned to 127.0.0.1
    (so the host must be ours), and by forms and scripts (so a request that changes something must come from the page).
    """

    def __init__(self, app: Any, door: Door) -> None:
        self.app = app
        self.door = door

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if refused := self.refusal(scope["method"], headers):
            await _refuse(send, *refused)
            return
        left = self.door.max_bytes

        async def counted() -> Any:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            return message if left >= 0 else {"type": "http.disconnect"}

        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        await self.app(scope, counted, marked)

    def refusal(self, method: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and sentence where a request is refused, by its method and its headers (names in small letters)."""
        host = headers.get("host", "")
        if self.door.is_local and (urlsplit(f"//{host}").hostname or "") not in LOOPBACK:
            return 403, f"This page is not served under the name {host[:100]!r}."
        origin = headers.get("origin")
        if method not in ("GET", "HEAD") and origin is not None and urlsplit(origin).netloc != host:
            return 403, "A request that saves something must come from the page itself."
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.door.max_bytes:
            return 413, f"A request may have {self.door.max_bytes} bytes at most."
        return None


async def _refuse(send: Any, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sentence.encode()})
