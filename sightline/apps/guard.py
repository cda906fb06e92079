"""What stands before a Gradio page: refuses what the page's own browser would not send, says what a browser may load.

A local server can be reached by any web site that its user visits: through a name that is turned to 127.0.0.1 (so the
host must be ours), and by forms and scripts (so a request that changes something must come from the page). Of Gradio's
routes only those are open that a page uses.
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


class UploadRefused(Exception):
    """Why a file is not taken, as a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass
class Uploads:
    """The uploads of one page in `folder`. `waiting` is when each file came, by its resolved path."""

    folder: Path
    max_total: int
    count: int = 16
    seconds: float = 60.0
    waiting: dict[str, float] = field(default_factory=dict)
    _coming: dict[int, int] = field(default_factory=dict)
    _number: int = 0
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def coming(self, size: int) -> Iterator[None]:
        """Room for one upload of `size` bytes at most while it comes in; what it leaves behind unnamed is removed.

        Raises:
            UploadRefused: too many files, or too many bytes, wait or are coming in.
        """
        with self._lock:
            self._remove_strays()
            if len(self.waiting) + len(self._coming) >= self.count:
                raise UploadRefused(429, "Too many pictures are waiting; try again in a minute.")
            if _size_of(self.waiting) + sum(self._coming.values()) + size > self.max_total:
                raise UploadRefused(429, "The waiting pictures take all the room for uploads; try again in a minute.")
            self._number += 1
            number = self._number
            self._coming[number] = size
        try:
            yield
        finally:
            with self._lock:
                del self._coming[number]
                self._remove_strays()

    def add(self, answer: Any) -> None:
        """Note what an upload's answer names: one path.

        Raises:
            UploadRefused: it names several, or none.
        """
        if not isinstance(answer, list) or len(answer) != 1 or not self._holds(answer[0]):
            raise UploadRefused(413, "Send one picture at a time.")
        with self._lock:
            self.waiting[_key(answer[0])] = time.monotonic()

    def knows(self, path: object) -> bool:
        """Whether `path` is an upload that waits."""
        return self._holds(path) and _key(str(path)) in self.waiting

    def take(self, path: object, most: int) -> bytes:
        """The bytes of an upload, one more than `most` at most. The file is removed.

        Raises:
            InputError: `path` is no upload that waits.
        """
        with self._lock:
            known = isinstance(path, str) and self._holds(path) and self.waiting.pop(_key(path), None) is not None
            if not known:
                raise InputError("this picture was not sent to this page, or has waited too long; choose it again")
            place = Path(str(path))
            try:
                with place.open("rb") as file:
                    return file.read(most + 1)
            except OSError as error:
                raise InputError("the picture that was sent is gone; choose it again") from error
            finally:
                place.unlink(missing_ok=True)
                self._remove_strays()  # Gradio leaves an empty file for each one that it hands over

    def _holds(self, path: object) -> bool:
        """Whether a path is one of a plain file in the folder, links resolved."""
        if not isinstance(path, str) or "\0" in path:
            return False
        return _key(path).startswith(os.path.join(_key(self.folder), ""))  # noqa: PTH118 - with the separator

    def _remove_strays(self) -> None:
        """Remove what has waited too long and, while nothing comes in, what nobody can name."""
        now = time.monotonic()
        self.waiting = {path: came for path, came in self.waiting.items() if now - came <= self.seconds}
        if self._coming or not self.folder.is_dir():
            return
        for place in sorted(self.folder.rglob("*"), reverse=True):  # what is in a folder comes before the folder
            if place.is_dir() and not place.is_symlink():
                _remove_empty(place)
            elif _key(place) not in self.waiting:
                place.unlink(missing_ok=True)


def _key(path: str | Path) -> str:
    return os.path.realpath(path)


def _size_of(paths: dict[str, float]) -> int:
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
#: Largest body of a request that is no upload.
_JSON_BYTES = 4 * MEGABYTE
_DEEPEST = 100

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
    """Where a page is served, and the most bytes that one request to it may have."""

    host: str = "127.0.0.1"
    port: int = 0
    max_bytes: int = 32 * MEGABYTE

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine reach it."""
        return self.host in LOOPBACK


class Guard:
    """An ASGI application before a page's own. Without `uploads` no file is taken and none can be named."""

    def __init__(self, app: Any, door: BindAddress, uploads: Uploads | None = None) -> None:
        self.app, self.door, self.uploads = app, door, uploads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        names = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        path = scope.get("path", "/").rstrip("/")
        if refused := self.refusal(scope["method"], names) or self._closed(scope["method"], path):
            await _refuse(send, *refused)
        elif scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, marked)
        elif path == _UPLOAD:
            await self._upload(scope, receive, marked, dict(names))
        else:
            await self._call(scope, receive, marked, dict(names))

    def refusal(self, method: str, headers: list[tuple[str, str]]) -> tuple[int, str] | None:
        """Status and sentence where a request is refused, by its method and its headers (names in small letters)."""
        hosts = [value for name, value in headers if name == "host"]
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None:
            return 400, "A request must have one Host header of the form name:port."
        if self.door.is_local and found.group(1).strip("[]").lower() not in LOOPBACK:
            return 403, f"This page is not served under the name {hosts[0][:100]!r}."
        told = dict(headers)
        origin = told.get("origin")
        if method not in ("GET", "HEAD") and origin is not None and origin.partition("://")[2] != hosts[0]:
            return 403, "A request that saves something must come from the page itself."
        length = told.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > self.door.max_bytes:
            return 413, f"A request may have {self.door.max_bytes} bytes at most."
        return None

    def _closed(self, method: str, path: str) -> tuple[int, str] | None:
        if method in ("GET", "HEAD"):
            is_open = path in _READ or path.startswith(_READ_BELOW)
        elif path == _UPLOAD and self.uploads is None:
            return 403, "This page takes no files."
        else:
            is_open = method == "POST" and (path in _CALL or path == _UPLOAD)
        return None if is_open else (404, "There is no such page.")

    async def _upload(self, scope: Any, receive: Any, send: Any, headers: dict[str, str]) -> None:
        """Let Gradio write a file down, if there is room; its answer is read before the browser gets it."""
        assert self.uploads is not None
        size = int(headers["content-length"]) if "content-length" in headers else self.door.max_bytes
        left, start, body, is_cut = size, None, bytearray(), False

        async def counted() -> Any:
            nonlocal left, is_cut
            message = await receive()
            left -= len(message.get("body", b""))
            is_cut = left < 0 or message["type"] != "http.request"
            return {"type": "http.disconnect"} if is_cut else message

        async def held(message: Any) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            else:
                body.extend(message.get("body", b""))

        try:
            with self.uploads.coming(size):
                await self.app(scope, counted, held)
                if start is not None and start["status"] == 200:
                    self.uploads.add(_json(bytes(body)))
        except UploadRefused as refused:
            await _refuse(send, refused.status, refused.sentence)
            return
        except Exception:  # what an application raises when its sender leaves is its own affair
            if not is_cut:
                raise
            start = None
        if is_cut:
            await _refuse(send, 413, f"A request may have {size} bytes at most.")
            return
        if start is not None:
            await send(start)
            await send({"type": "http.response.body", "body": bytes(body)})

    async def _call(self, scope: Any, receive: Any, send: Any, headers: dict[str, str]) -> None:
        """Pass a call of a function on once its whole body is read and names no file but a waiting upload."""
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            await _refuse(send, 415, "A call must be of type application/json.")
            return
        body, more, most = bytearray(), True, min(_JSON_BYTES, self.door.max_bytes)
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the sender left
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > most:
                await _refuse(send, 413, f"A call may have {most} bytes at most.")
                return
        if refused := self._unsound(bytes(body)):
            await _refuse(send, *refused)
            return
        given = False

        async def again() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, again, send)

    def _unsound(self, body: bytes) -> tuple[int, str] | None:
        """Status and sentence for a body that is no plain JSON, or names a file that the page was not sent."""
        if not body:
            return None
        try:
            value = json.loads(body.decode("utf-8"), object_pairs_hook=_object)
            for path in _paths(value):
                if self.uploads is None or not self.uploads.knows(path):
                    return 403, "A file that was not sent to this page cannot be named."
        except (ValueError, RecursionError):
            return 400, "A call must be plain JSON in UTF-8, each key once."
        return None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key occurs twice")
    return made


def _paths(value: Any, depth: int = 0) -> Iterator[Any]:
    """Whatever stands under `path` in an object, anywhere: Gradio takes such objects for files."""
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
