"""Serving a Gradio page on this machine, without network access.

`label` and `chat` build the pages. Gradio's telemetry is off, fonts are the system's, and a content security policy
keeps the browser from loading anything from other hosts.
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
from sightline.report.gallery import data_uri


def import_gradio(scratch: Path) -> Any:
    """Import `gradio` with telemetry off and uploads stored in `scratch`.

    Raises:
        InputError: Gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(scratch)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        return import_module("gradio")
    except ImportError as error:
        raise InputError("pages need Gradio; install it with: pip install 'sightline[app]'") from error


def page_theme(gradio: Any) -> Any:
    """The theme of the pages, with system fonts only."""
    plain, fixed = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gradio.themes.Base(primary_hue="teal", neutral_hue="slate", font=plain, font_mono=fixed)


def page_file(name: str) -> str:
    """The text of a file in `sightline/apps`, such as `label/page.js`."""
    return files("sightline.apps").joinpath(name).read_text(encoding="utf-8")


def guard_page(
    gradio: Any, blocks: Any, address: BindAddress, *, css: str, title: str, uploads: Uploads | None = None
) -> Any:
    """The ASGI application of a page behind its `Guard`; without `uploads` the page accepts no files."""
    from fastapi import FastAPI

    blocks.has_launched = True  # Gradio checks file paths only if this is set, and does not set it on a mounted app
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=address.host,
        server_port=address.port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=address.max_bytes,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        theme=page_theme(gradio),
        css=page_file("page.css") + css,
    )
    return Guard(app, address, uploads)


def picture_uri(path: Path) -> str | None:
    """A picture as a data URI, shrunk for the screen; the file stays as it is. None if it cannot be opened."""
    return data_uri(path, side=1600, size=2_000_000)


def open_socket(address: BindAddress) -> socket.socket:
    """Open a listening socket.

    Raises:
        InputError: the port is in use, or the address does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{address.host} port {address.port} cannot be opened ({reason}); choose another --port or --host"
        ) from error


def serve(
    app: Any, address: BindAddress, listening: socket.socket, *, name: str, scratch: Path, log: Callable[[str], None]
) -> None:
    """Serve until Ctrl-C and delete `scratch`; `log` gets the URL, and a warning if other machines can reach it."""
    import uvicorn

    from sightline.apps.connections import BACKLOG, ConnectionLimits, limited_protocol

    host = f"[{address.host}]" if ":" in address.host else address.host
    if not address.is_local:
        log(
            f"warning: {address.host} is reachable from other machines; anyone who can reach the page can use it under "
            "any name. Leave out --host to allow this machine only"
        )
    log(f"{name}: http://{host}:{listening.getsockname()[1]} (Ctrl-C stops it; saved data remain)")
    protocol = limited_protocol(ConnectionLimits())
    config = uvicorn.Config(
        app, log_level="warning", http=protocol, backlog=BACKLOG, ws="none", timeout_graceful_shutdown=2
    )
    shutil.rmtree(scratch, ignore_errors=True)  # leftovers of a killed server
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
