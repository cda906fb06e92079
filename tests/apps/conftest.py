"""A door before a real local server that says what a test wants, and requests as clients send them."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from PIL import Image

from sightline.apps.serve.config import ServeConfig
from sightline.apps.serve.proxy import ProxyConfig
from sightline.apps.serve.run import server_settings
from sightline.data.request_log import RequestLog
from tests.judges.local_server import Script, serving


def data_url(size: tuple[int, int] = (24, 16), color: str = "teal", kind: str = "PNG") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def chat(text: str, *urls: str, **more: Any) -> dict[str, Any]:
    """A body as OpenAI's client sends it: pictures before the text."""
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {"model": "m", "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}], **more}


@contextmanager
def door_before(
    script: Script, log: Path | None = None, failure_text: Callable[[], str | None] = lambda: None, **settings: Any
) -> Iterator[httpx2.Client]:
    """A client of the door before a server that follows the script."""
    with serving(script) as (url, _), standing_before(url.removesuffix("/v1"), log, failure_text, **settings) as client:
        yield client


@contextmanager
def standing_before(
    url: str, log: Path | None = None, failure_text: Callable[[], str | None] = lambda: None, **settings: Any
) -> Iterator[httpx2.Client]:
    """A client of the door before the server at `url`; settings are the config's, or the door's own."""
    names = {"model", "upstream", "by_stream", "merges_system", "api_key", "warn"} & settings.keys()
    own = {name: settings.pop(name) for name in names}
    config = ServeConfig.model_validate(settings)
    kept = None if log is None else RequestLog(log, int(config.file_mb * 2**20))
    with standing(
        ProxyConfig(url, config=config, failure_text=failure_text, log=kept, **{"model": "m", **own})
    ) as client:
        yield client


@contextmanager
def standing(door: ProxyConfig) -> Iterator[httpx2.Client]:
    """A client of a door, served as the command serves it."""
    shown = server_settings(door)
    shown.port, shown.log_level, shown.timeout_graceful_shutdown = 0, "error", 1
    server = uvicorn.Server(shown)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, verify=False) as client:
        try:
            yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
