"""The door before a model's server: what may come in, what is logged, and where people say what they think of answers.

What is passed on is written anew from what was read and checked; the answer comes back as the server gives it, streams
piece by piece, under the served model's name. Only chat completions are let through: servers have routes that load
other models or fetch files. A call whose sender leaves is ended. What starts the server behind it is `engine`.
"""

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx2
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from sightline.apps.serve.config import ServeConfig
from sightline.apps.serve.request_parser import ChatRequest, Refused, read_body
from sightline.apps.serve.response_parser import (
    MOST_BYTES,
    Ending,
    LogFailures,
    Naming,
    ParsedResponse,
    completion_of,
    failure,
    named,
    read_answer,
    served_row,
    write_call,
)
from sightline.config.problems import describe
from sightline.data.request_log import RequestLog
from sightline.data.terminal import say
from sightline.records.ratings import Feedback

T = TypeVar("T")

#: The answer's header that names the call; `POST /feedback` wants it.
ID_HEADER = "x-sightline-id"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CHAT = "/v1/chat/completions"
_FEEDBACK_BYTES = 64 * 1024
#: Calls whose pictures are decoded at once: each may take as much memory as `max_call_pixels` allows.
_READERS = 2
_LEFT = 499  # the status in the log of a call whose sender left before its answer; nobody gets it
#: Headers that belong to one connection and not to what it carries (RFC 9110, sec. 7.6.1), and those made anew.
_PER_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "host", "content-length", "expect", "date", "server"}
)


def _to_stderr(line: str) -> None:
    say(line, err=True)


@dataclass(frozen=True)
class ProxyConfig:
    """What the proxy knows: where the server is, how it fares (a sentence when it is gone), and the log, if any.

    `model` is the name that clients use and `upstream` that which the server knows; `by_stream` asks it for streams
    alone, because it generates whole answers to their end even if nobody waits. `warn` hears of rows that are lost.
    """

    url: str
    model: str
    config: ServeConfig
    gone: Callable[[], str | None]
    log: RequestLog | None = None
    hosts: tuple[str, ...] = LOOPBACK
    upstream: str = ""
    by_stream: bool = False
    api_key: str | None = field(default=None, repr=False)
    warn: Callable[[str], None] = _to_stderr


def build_app(door: ProxyConfig) -> Starlette:
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

    def __init__(self, door: ProxyConfig) -> None:
        self._door, self._losses, self._reading = door, LogFailures(door.warn), asyncio.Semaphore(_READERS)
        # Each call has a connection of its own. One that is kept may have been closed by the server, after an error of
        # another client for example, and a call that is sent on it is lost.
        self._client = httpx2.AsyncClient(
            base_url=door.url,
            timeout=httpx2.Timeout(door.config.timeout, connect=10),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
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
        if found.status_code != 200:
            return _error(503, "the model's server is ill")
        lost = {"log": {"lost": self._losses.count, "reason": self._losses.reason}} if self._losses.count else {}
        return JSONResponse({"status": "ok"} | lost)

    async def models(self, request: Request) -> Response:
        """The one model."""
        if not self._may_ask(request):
            return _unauthorized()
        return JSONResponse({"object": "list", "data": [{"id": self._door.model, "object": "model"}]})

    async def feedback(self, request: Request) -> Response:
        """A thumb, a correction, or both, to a call of the log."""
        if not self._may_ask(request):
            return _unauthorized()
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
        try:
            await asyncio.to_thread(self._door.log.add_feedback, row)
        except (OSError, ValueError) as error:
            self._losses.note(error)
            return _error(507, "the feedback cannot be written down; tell whoever runs this server")
        return JSONResponse({"status": "ok"})

    async def chat(self, request: Request) -> Response:
        """A chat completion: checked, passed on, and, where there is a log, written down when it is over."""
        door, start, when = self._door, time.monotonic(), datetime.now(UTC)
        if not self._may_ask(request):
            return _unauthorized()
        if (gone := door.gone()) is not None:
            return _error(503, gone)
        try:
            body = await _body(request, int(door.config.max_mb * 2**20))
            async with self._reading:
                asked = await asyncio.to_thread(read_body, body, door.config, door.model)
        except Refused as refused:
            return _error(refused.status, refused.sentence)
        call = _Call(uuid.uuid4().hex, when, start, asked)
        try:
            answer = await _unless_left(request, self._answer(call))
        except _Left:
            self._write(call, ParsedResponse(), _LEFT, "the client left before the end")
            return Response(status_code=_LEFT)
        except httpx2.HTTPError as error:
            sentence = door.gone() or f"the model's server does not answer ({type(error).__name__})"
            self._write(call, ParsedResponse(), 502, sentence)
            return _error(502, sentence, call.id)
        if isinstance(answer, httpx2.Response):
            parts = self._pass_on(answer, call)
            return StreamingResponse(parts, answer.status_code, {**_kept(answer), ID_HEADER: call.id})
        # The row is on disk before the client has the answer, so that feedback finds it.
        self._write(call, read_answer(answer.body, is_stream=False), answer.status)
        return Response(answer.body, answer.status, {**answer.headers, ID_HEADER: call.id})

    async def _answer(self, call: "_Call") -> "httpx2.Response | _Whole":
        """What the server answers: a stream that has begun, where one was asked for, or all of it."""
        door = self._door
        body = call.asked.body | {"model": door.upstream or door.model}
        if door.by_stream:
            body = {key: value for key, value in body.items() if key != "stream_options"} | {"stream": True}
        headers = {"content-type": "application/json", "accept-encoding": "identity", "x-request-id": call.id}
        passed_on = self._client.build_request("POST", _CHAT, content=json.dumps(body).encode(), headers=headers)
        answer = await self._client.send(passed_on, stream=True)
        is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
        if is_stream and call.asked.is_stream:
            return answer
        try:
            heard, size = list[bytes](), 0
            async for part in answer.aiter_raw():
                heard.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    return _failed(502, f"the answer is larger than {MOST_BYTES} bytes")
        finally:
            await answer.aclose()
        whole, status, kept = b"".join(heard), answer.status_code, _kept(answer)
        if is_stream:
            status, whole = completion_of(whole)
            kept["content-type"] = "application/json"
        elif status >= 500 and not kept.get("content-type", "").startswith("application/json"):
            return _failed(status, f"the model's server failed on this request (status {status})")
        return _Whole(status, named(whole, door.model), kept)

    async def _pass_on(self, answer: httpx2.Response, call: "_Call") -> AsyncIterator[bytes]:
        """A stream's bytes as they come."""
        heard, size, note, naming = list[bytes](), 0, "the client left before the end", Naming(self._door.model)

        def remember(part: bytes) -> bytes:
            nonlocal size
            if size < MOST_BYTES:
                heard.append(part)
                size += len(part)
            return part

        try:
            async for part in answer.aiter_raw():
                if told := naming.feed(part):
                    yield remember(told)
            if told := naming.rest():
                yield remember(told)
            note = ""
        except httpx2.HTTPError as error:
            note = self._door.gone() or f"the model's server broke off ({type(error).__name__})"
            raise
        finally:
            # Without an await before the row is written: whoever left early has cancelled this task.
            self._write(call, read_answer(b"".join(heard), is_stream=True), answer.status_code, note)
            await answer.aclose()

    def _write(self, call: "_Call", told: ParsedResponse, status: int, note: str = "") -> None:
        """Put a call into the log, if there is one and it can be written; an answer never fails by it."""
        if self._door.log is None:
            return
        ending = Ending(told, status, time.monotonic() - call.start, note)
        try:
            row = served_row(call.id, call.when, call.asked, ending, self._door.config)
            write_call(self._door.log, row, call.asked)
        except (OSError, ValueError) as error:
            self._losses.note(error)

    def _may_ask(self, request: Request) -> bool:
        """Whether a request has the key, where one is needed; it takes as long for a wrong key as for a right one."""
        if self._door.api_key is None:
            return True
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return hmac.compare_digest(key.strip().encode(), self._door.api_key.encode()) and scheme.lower() == "bearer"


@dataclass(frozen=True)
class _Call:
    """A call that is being answered."""

    id: str
    when: datetime
    start: float
    asked: ChatRequest


@dataclass(frozen=True)
class _Whole:
    """An answer that is all there."""

    status: int
    body: bytes
    headers: dict[str, str]


class _Left(Exception):
    """Whoever asked is gone."""


async def _unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; it is cancelled when the sender of the request, whose body is read, leaves.

    Raises:
        _Left: the sender left before.
    """

    async def leaving() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(leaving())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()
    try:
        return await working
    except asyncio.CancelledError as error:
        raise _Left from error


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
    return JSONResponse(failure(status, sentence), status, headers)


def _unauthorized() -> Response:
    answer = _error(401, "this server wants its key: send the header Authorization: Bearer KEY")
    answer.headers["www-authenticate"] = "Bearer"
    return answer


def _failed(status: int, sentence: str) -> _Whole:
    return _Whole(status, json.dumps(failure(status, sentence)).encode(), {"content-type": "application/json"})


def _kept(answer: httpx2.Response) -> dict[str, str]:
    """The headers of an answer that go on to the client."""
    return {name: value for name, value in answer.headers.items() if name.lower() not in _PER_HOP}


def _bracketed(host: str) -> str:
    """A host as it stands in a header: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
