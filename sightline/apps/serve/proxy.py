"""The door before a model's server: what may come in, what is logged, and where people say what they think of answers.

Answers go through untouched, byte by byte as they come, streams too. Only chat completions are let through: servers
have routes that load other models or fetch files. What starts the server behind it is `engine`.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx2
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from sightline.apps.serve.asking import Asked, Refused, read_body
from sightline.apps.serve.call_log import Ending, served_row, write_call
from sightline.apps.serve.config import ServeConfig
from sightline.apps.serve.telling import MOST_BYTES, read_answer
from sightline.config.problems import describe
from sightline.data.request_log import RequestLog
from sightline.records.requests import Feedback

#: The answer's header that names the call; `POST /feedback` wants it.
ID_HEADER = "x-sightline-id"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CHAT = "/v1/chat/completions"
_FEEDBACK_BYTES = 64 * 1024
#: Headers that belong to one connection and not to what it carries (RFC 9110, sec. 7.6.1), and those made anew.
_PER_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "host", "content-length", "expect", "date", "server"}
)


@dataclass(frozen=True)
class Door:
    """What the proxy knows: where the server is, how it fares (a sentence when it is gone), and the log, if any."""

    url: str
    model: str
    config: ServeConfig
    gone: Callable[[], str | None]
    log: RequestLog | None = None
    hosts: tuple[str, ...] = LOOPBACK


def build_app(door: Door) -> Starlette:
    """The application; `door.hosts` are the names by which it may be asked ("*" for any)."""
    calls = _Calls(door)
    return Starlette(
        routes=[
            Route("/health", calls.health, methods=["GET"]),
            Route("/v1/models", calls.models, methods=["GET"]),
            Route(_CHAT, calls.chat, methods=["POST"]),
            Route("/feedback", calls.feedback, methods=["POST"]),
        ],
        # A page in somebody's browser may reach loopback under a name of its own (DNS rebinding).
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[_bracketed(host) for host in door.hosts])],
        lifespan=calls.lifespan,
    )


class _Calls:
    """The routes."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._client = httpx2.AsyncClient(
            base_url=door.url,
            timeout=httpx2.Timeout(door.config.timeout, connect=10),
            limits=httpx2.Limits(max_connections=None),
            trust_env=False,
            verify=False,  # it is plain HTTP on loopback, and certificates take a third of a second to read
        )

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Close the connections at the end."""
        try:
            yield
        finally:
            await self._client.aclose()

    async def health(self, _: Request) -> Response:
        """200 while the model's server answers, 503 with the reason when it does not."""
        if (gone := self._door.gone()) is not None:
            return _error(503, gone)
        try:
            found = await self._client.get("/health", timeout=10)
        except httpx2.HTTPError as error:
            return _error(503, f"the model's server does not answer ({type(error).__name__})")
        return JSONResponse({"status": "ok"}) if found.status_code == 200 else _error(503, "the model's server is ill")

    async def models(self, _: Request) -> Response:
        """The one model."""
        return JSONResponse({"object": "list", "data": [{"id": self._door.model, "object": "model"}]})

    async def feedback(self, request: Request) -> Response:
        """A thumb, a correction, or both, to a call of the log."""
        if self._door.log is None:
            return _error(404, "this server keeps no log, so there is nothing to give feedback on")
        try:
            body = await _body(request, _FEEDBACK_BYTES)
            told = Feedback.model_validate(json.loads(body))
            if told.thumb is None and told.correction is None:
                raise Refused(422, "give a thumb (up or down), a correction, or both")
        except Refused as refused:
            return _error(refused.status, refused.sentence)
        except ValidationError as error:
            return _error(422, describe(error, Feedback))
        except (ValueError, RecursionError):
            return _error(400, "feedback must be a JSON object with id, thumb, correction")
        row = told.model_copy(update={"time": datetime.now(UTC).isoformat(timespec="seconds")})
        await asyncio.to_thread(self._door.log.add_feedback, row)
        return JSONResponse({"status": "ok"})

    async def chat(self, request: Request) -> Response:
        """A chat completion: checked, passed on, and, where there is a log, written down when it is over."""
        door, start, when = self._door, time.monotonic(), datetime.now(UTC)
        if (gone := door.gone()) is not None:
            return _error(503, gone)
        try:
            body = await _body(request, int(door.config.max_mb * 2**20))
            asked = await asyncio.to_thread(read_body, body, max_pixels=door.config.max_pixels)
        except Refused as refused:
            return _error(refused.status, refused.sentence)
        call_id = uuid.uuid4().hex
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _PER_HOP}
        headers |= {"x-request-id": call_id}
        if door.log is not None:
            headers["accept-encoding"] = "identity"  # what is compressed could be passed on and not read
        passed_on = self._client.build_request("POST", _CHAT, content=body, headers=headers)
        try:
            answer = await self._client.send(passed_on, stream=True)
        except httpx2.HTTPError as error:
            sentence = door.gone() or f"the model's server does not answer ({type(error).__name__})"
            self._write(call_id, when, asked, Ending(read_answer(b"", is_stream=False), 502, 0.0, sentence))
            return _error(502, sentence, call_id)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in _PER_HOP}
        if "content-length" in answer.headers:
            kept["content-length"] = answer.headers["content-length"]
        parts = self._pass_on(answer, _Call(call_id, when, start, asked))
        return StreamingResponse(parts, answer.status_code, {**kept, ID_HEADER: call_id})

    async def _pass_on(self, answer: httpx2.Response, call: "_Call") -> AsyncIterator[bytes]:
        """The answer's bytes. A stream's as they come; others once the row is on disk, so that feedback finds it."""
        is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
        heard, size, holds, note = list[bytes](), 0, not is_stream, "the client left before the end"

        def ending() -> Ending:
            told = read_answer(b"".join(heard), is_stream=is_stream)
            return Ending(told, answer.status_code, time.monotonic() - call.start, note)

        is_written = False
        try:
            async for part in answer.aiter_raw():
                if size < MOST_BYTES:
                    heard.append(part)
                    size += len(part)
                    if holds and size < MOST_BYTES:
                        continue
                    if holds:  # too long to be held, and remembered no further
                        holds, part = False, b"".join(heard)
                yield part
            note = ""
            self._write(call.id, call.when, call.asked, ending())
            is_written = True
            if holds:
                yield b"".join(heard)
        except httpx2.HTTPError as error:
            note = self._door.gone() or f"the model's server broke off ({type(error).__name__})"
            raise
        finally:
            # Without an await before the row is written: whoever left early has cancelled this task.
            if not is_written:
                self._write(call.id, call.when, call.asked, ending())
            await answer.aclose()

    def _write(self, call_id: str, when: datetime, asked: Asked, ending: Ending) -> None:
        if self._door.log is not None:
            write_call(self._door.log, served_row(call_id, when, asked, ending, self._door.config), asked)


@dataclass(frozen=True)
class _Call:
    """A call that is being answered."""

    id: str
    when: datetime
    start: float
    asked: Asked


async def _body(request: Request, limit: int) -> bytes:
    """The body of a request, which is never in memory beyond the limit.

    Raises:
        Refused: it is longer, is not said to be JSON, or its sender left.
    """
    # Browsers send other types to strangers without asking; JSON they ask for first, and are refused.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "the body must be of type application/json")
    said = request.headers.get("content-length", "")
    parts, size = list[bytes](), int(said) if said.isdecimal() else 0
    too_long = f"the body is larger than {limit / 2**20:.3g} MiB; send smaller pictures"
    if size > limit:
        raise Refused(413, too_long)
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise Refused(413, too_long)
            parts.append(part)
    except ClientDisconnect as error:
        raise Refused(400, "the sender left") from error
    return b"".join(parts)


def _error(status: int, sentence: str, call_id: str | None = None) -> Response:
    """An error in the form of OpenAI's."""
    headers = {} if call_id is None else {ID_HEADER: call_id}
    return JSONResponse({"error": {"message": sentence, "type": "sightline", "code": status}}, status, headers)


def _bracketed(host: str) -> str:
    """A host as it stands in a header: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
