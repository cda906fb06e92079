"""A Gradio page on this machine: what it needs, who may reach it, and how long it is served.

It knows no page; `label` and `chat` build theirs and hand it over. Nothing is asked of the network: Gradio's telemetry
is off, fonts are the system's, and a content policy keeps the browser from loading anything from elsewhere.
"""

import os
import shutil
import socket
from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from sightline.apps.guard import BindAddress, Guard, Uploads
from sightline.errors import InputError


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


def guarded(
    gradio: Any, blocks: Any, door: BindAddress, *, css: str, title: str, uploads: Uploads | None = None
) -> Any:
    """The ASGI application of a page behind its `Guard`; without `uploads` the page takes no files."""
    from fastapi import FastAPI

    blocks.has_launched = True  # Gradio checks the paths of files only then, and does not set it on a mounted app
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
    return Guard(app, door, uploads)


def open_door(door: BindAddress) -> socket.socket:
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
    app: Any, door: BindAddress, listening: socket.socket, *, name: str, scratch: Path, tell: Callable[[str], None]
) -> None:
    """Serve until Ctrl-C; `tell` gets the address, and a warning where others can reach it. `scratch` is emptied."""
    import uvicorn

    from sightline.apps.connections import BACKLOG, ConnectionLimits, limited_protocol

    host = f"[{door.host}]" if ":" in door.host else door.host
    if not door.is_local:
        tell(
            f"warning: {door.host} can be reached from other machines, and whoever reaches this page can use it "
            "under any name; without --host only this machine can"
        )
    tell(f"{name}: http://{host}:{listening.getsockname()[1]} (Ctrl-C ends it; what was saved stays)")
    protocol = limited_protocol(ConnectionLimits())
    config = uvicorn.Config(
        app, log_level="warning", http=protocol, backlog=BACKLOG, ws="none", timeout_graceful_shutdown=2
    )
    shutil.rmtree(scratch, ignore_errors=True)  # what an earlier server that was killed left
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
