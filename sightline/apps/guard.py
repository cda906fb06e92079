"""An ASGI guard before a Gradio page: rejects requests that the page itself would not send, and adds security headers.

Any web site the user visits can reach a local server: by DNS rebinding (so the Host header must be ours), and by forms
and scripts (so a request that changes something must come from the page). Only the Gradio routes that a page needs are
open.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from sightline.errors import InputError


class UploadRejected(Exception):
    """A rejected upload: HTTP status and message."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass
class Uploads:
    """The pending uploads of one page, in `folder`. `waiting` maps each resolved path to its time of arrival."""

    folder: Path
    max_total: int
    count: int = 16
    seconds: float = 60.0
    waiting: dict[str, float] = field(default_factory=dict)
    _receiving: dict[int, int] = field(default_factory=dict)
    _number: int = 0
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def admit(self, size: int) -> Iterator[None]:
        """Reserve space for one upload of at most `size` bytes; files it leaves behind unregistered are removed.

        Raises:
            UploadRejected: too many files or bytes are pending or arriving.
        """
        with self._lock:
            self._remove_strays()
            if len(self.waiting) + len(self._receiving) >= self.count:
                raise UploadRejected(429, "Too many pictures are pending; try again in a minute.")
            if _total_bytes(self.waiting) + sum(self._receiving.values()) + size > self.max_total:
                raise UploadRejected(429, "The pending pictures use all the space for uploads; try again in a minute.")
            self._number += 1
            number = self._number
            self._receiving[number] = size
        try:
            yield
        finally:
            with self._lock:
                del self._receiving[number]
                self._remove_strays()

    def add(self, answer: Any) -> None:
        """Register the one path that the response to an upload names.

        Raises:
            UploadRejected: it names several paths, or none.
        """
        if not isinstance(answer, list) or len(answer) != 1 or not self._holds(answer[0]):
            raise UploadRejected(413, "Send one picture at a time.")
        with self._lock:
            self.waiting[_real_path(answer[0])] = time.monotonic()

    def knows(self, path: object) -> bool:
        """Whether `path` is a pending upload."""
        return self._holds(path) and _real_path(str(path)) in self.waiting

    def take(self, path: object, most: int) -> bytes:
        """Read and remove an upload, up to `most` + 1 bytes.

        Raises:
            InputError: `path` is not a pending upload.
        """
        with self._lock:
            known = isinstance(path, str) and self._holds(path) and self.waiting.pop(_real_path(path), None) is not None
            if not known:
                raise InputError("this picture was not uploaded to this page, or its upload expired; choose it again")
            place = Path(str(path))
            try:
                with place.open("rb") as file:
                    return file.read(most + 1)
            except OSError as error:
                raise InputError("the uploaded picture is gone; choose it again") from error
            finally:
                place.unlink(missing_ok=True)
                self._remove_strays()  # Gradio leaves an empty file for each upload

    def _holds(self, path: object) -> bool:
        """Whether a path lies in the folder, links resolved."""
        if not isinstance(path, str) or "\0" in path:
            return False
        return _real_path(path).startswith(os.path.join(_real_path(self.folder), ""))  # noqa: PTH118 - with the separator

    def _remove_strays(self) -> None:
        """Drop expired uploads and, unless an upload is arriving, delete unregistered files."""
        now = time.monotonic()
        self.waiting = {path: came for path, came in self.waiting.items() if now - came <= self.seconds}
        if self._receiving or not self.folder.is_dir():
            return
        for place in sorted(self.folder.rglob("*"), reverse=True):  # contents before their folder
            if place.is_dir() and not place.is_symlink():
                _remove_empty(place)
            elif _real_path(place) not in self.waiting:
                place.unlink(missing_ok=True)


def _real_path(path: str | Path) -> str:
    return os.path.realpath(path)


def _total_bytes(paths: dict[str, float]) -> int:
    sizes = 0
    for path in paths:
        place = Path(path)
        sizes += place.stat().st_size if place.is_file() else 0
    return sizes


def _remove_empty(place: Path) -> None:
    try:
        place.rmdir()
    except OSError:  # it is not empty
        return


LOOPBACK = ("127.0.0.1", "localhost", "::1")
MEGABYTE = 2**20
#: Largest request body other than an upload.
_JSON_BYTES = 4 * MEGABYTE
_DEEPEST = 100

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio generates its components' code
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

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_UPLOAD = "/gradio_api/upload"
_READ = frozenset(
    {"", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"}
    | {f"/gradio_api/{name}" for name in ("app_id", "info", "login_check", "startup-events", "theme.css", "token")}
    | {f"/gradio_api/{name}" for name in ("queue/data", "queue/status", "upload_progress", "user")}
)
_READ_BELOW = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/")
_CALL = frozenset(f"/gradio_api/{name}" for name in ("cancel", "component_server", "queue/join", "reset"))


@dataclass(frozen=True)
class BindAddress:
    """The address of a page, and the largest request it accepts, in bytes."""

    host: str = "127.0.0.1"
    port: int = 0
    max_bytes: int = 32 * MEGABYTE

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK


class Guard:
    """An ASGI application around a page's own. Without `uploads`, files can be neither uploaded nor named."""

    def __init__(self, app: Any, address: BindAddress, uploads: Uploads | None = None) -> None:
        self.app, self.address, self.uploads = app, address, uploads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        names = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        path = scope.get("path", "/").rstrip("/")
        if refused := self.refusal(scope["method"], names) or self._route_refusal(scope["method"], path):
            await _refuse(send, *refused)
        elif scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send_with_headers)
        elif path == _UPLOAD:
            await self._upload(scope, receive, send_with_headers, dict(names))
        else:
            await self._call(scope, receive, send_with_headers, dict(names))

    def refusal(self, method: str, headers: list[tuple[str, str]]) -> tuple[int, str] | None:
        """Status and message if a request is rejected for its method or headers (lower-case names), else None."""
        hosts = [value for name, value in headers if name == "host"]
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None:
            return 400, "A request needs exactly one Host header of the form name:port."
        if self.address.is_local and found.group(1).strip("[]").lower() not in LOOPBACK:
            return 403, f"This page is not served under the name {hosts[0][:100]!r}."
        values = dict(headers)
        origin = values.get("origin")
        if method not in ("GET", "HEAD") and origin is not None and origin.partition("://")[2] != hosts[0]:
            return 403, "A request that saves something must come from the page itself."
        length = values.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > self.address.max_bytes:
            return 413, f"A request may have at most {self.address.max_bytes} bytes."
        return None

    def _route_refusal(self, method: str, path: str) -> tuple[int, str] | None:
        if method in ("GET", "HEAD"):
            is_open = path in _READ or path.startswith(_READ_BELOW)
        elif path == _UPLOAD and self.uploads is None:
            return 403, "This page accepts no files."
        else:
            is_open = method == "POST" and (path in _CALL or path == _UPLOAD)
        return None if is_open else (404, "No such page.")

    async def _upload(self, scope: Any, receive: Any, send: Any, headers: dict[str, str]) -> None:
        """Let Gradio store a file if there is space; its response is read before it is sent on."""
        assert self.uploads is not None
        size = int(headers["content-length"]) if "content-length" in headers else self.address.max_bytes
        left, start, body, is_cut = size, None, bytearray(), False

        async def receive_counted() -> Any:
            nonlocal left, is_cut
            message = await receive()
            left -= len(message.get("body", b""))
            is_cut = left < 0 or message["type"] != "http.request"
            return {"type": "http.disconnect"} if is_cut else message

        async def hold(message: Any) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            else:
                body.extend(message.get("body", b""))

        try:
            with self.uploads.admit(size):
                await self.app(scope, receive_counted, hold)
                if start is not None and start["status"] == 200:
                    self.uploads.add(_json(bytes(body)))
        except UploadRejected as refused:
            await _refuse(send, refused.status, refused.sentence)
            return
        except Exception:  # an application may raise anything when its client disconnects
            if not is_cut:
                raise
            start = None
        if is_cut:
            await _refuse(send, 413, f"A request may have at most {size} bytes.")
            return
        if start is not None:
            await send(start)
            await send({"type": "http.response.body", "body": bytes(body)})

    async def _call(self, scope: Any, receive: Any, send: Any, headers: dict[str, str]) -> None:
        """Forward a function call after reading its whole body; it may name no file but a pending upload."""
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            await _refuse(send, 415, "A call must be of type application/json.")
            return
        body, more, most = bytearray(), True, min(_JSON_BYTES, self.address.max_bytes)
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client disconnected
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > most:
                await _refuse(send, 413, f"A call may have at most {most} bytes.")
                return
        if refused := self._body_refusal(bytes(body)):
            await _refuse(send, *refused)
            return
        is_replayed = False

        async def replay() -> Any:
            nonlocal is_replayed
            if is_replayed:
                return await receive()
            is_replayed = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, replay, send)

    def _body_refusal(self, body: bytes) -> tuple[int, str] | None:
        """Status and message for a body that is not plain JSON or names a file that was not uploaded, else None."""
        if not body:
            return None
        try:
            value = json.loads(body.decode("utf-8"), object_pairs_hook=_object)
            for path in _paths(value):
                if self.uploads is None or not self.uploads.knows(path):
                    return 403, "A call may not name a file that was not uploaded to this page."
        except (ValueError, RecursionError):
            return 400, "A call must be plain JSON in UTF-8 without duplicate keys."
        return None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        raise ValueError("a key occurs twice")
    return parsed


def _paths(value: Any, depth: int = 0) -> Iterator[Any]:
    """All values under a key `path`, at any depth: Gradio treats such objects as files."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        if "path" in value and value["path"] is not None:
            yield value["path"]
        for part in value.values():
            yield from _paths(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            yield from _paths(part, depth + 1)


async def _refuse(send: Any, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": sentence.encode()})
