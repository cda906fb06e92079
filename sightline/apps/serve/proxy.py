"""The reverse proxy in front of the model server: request validation, limits, the request log, and feedback.

Forwarded requests are rebuilt from the validated fields; answers come back unchanged, streams chunk by chunk, under the
served model's name. Only chat completions are forwarded, since servers have routes that load other models or fetch
files. If the client disconnects, its call is cancelled. `engine` starts the server.
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

from sightline.apps.guard import LOOPBACK
from sightline.apps.serve.config import ServeConfig
from sightline.apps.serve.request_parser import ChatRequest, RequestRejected, read_body
from sightline.apps.serve.response_parser import (
    MOST_BYTES,
    Ending,
    LogFailures,
    ParsedResponse,
    StreamRenamer,
    failure,
    join_stream,
    log_row,
    read_answer,
    with_model_name,
    write_call,
)
from sightline.config.problems import describe
from sightline.data.request_log import RequestLog
from sightline.data.terminal import say
from sightline.records.ratings import Feedback

T = TypeVar("T")

#: Response header with the call id, which `POST /feedback` needs.
ID_HEADER = "x-sightline-id"
_CHAT = "/v1/chat/completions"
_FEEDBACK_BYTES = 64 * 1024
#: Calls whose pictures are decoded concurrently: each may use as much memory as `max_call_pixels` allows.
_READERS = 2
_LEFT = 499  # logged status of a call whose client disconnected before the answer
#: Hop-by-hop headers (RFC 9110, sec. 7.6.1), and headers that are set anew.
_PER_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "host", "content-length", "expect", "date", "server"}
)


def _to_stderr(line: str) -> None:
    say(line, err=True)


@dataclass(frozen=True)
class ProxyConfig:
    """The proxy's settings: the server's URL, a check for its failure (a message once it ended), and the optional log.

    `model` is the name for clients, `upstream` the name for the server. With `by_stream`, only streams are requested,
    since the server would finish a whole answer even after the client disconnected. `merges_system` is for models whose
    chat template would render a system turn as an answer. `warn` reports lost log rows.
    """

    url: str
    model: str
    config: ServeConfig
    failure_text: Callable[[], str | None]
    log: RequestLog | None = None
    hosts: tuple[str, ...] = LOOPBACK
    upstream: str = ""
    by_stream: bool = False
    merges_system: bool = False
    api_key: str | None = field(default=None, repr=False)
    warn: Callable[[str], None] = _to_stderr


def build_app(proxy: ProxyConfig) -> Starlette:
    """Build the application; `proxy.hosts` are the accepted Host names ("*" for any)."""
    calls = _Calls(proxy)
    return Starlette(
        routes=[
            Route("/health", calls.health, methods=["GET"]),
            Route("/v1/models", calls.models, methods=["GET"]),
            Route(_CHAT, calls.chat, methods=["POST"]),
            Route("/feedback", calls.feedback, methods=["POST"]),
        ],
        # A web page may reach loopback under its own host name (DNS rebinding).
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[_bracket_ipv6(host) for host in proxy.hosts])],
        lifespan=calls.lifespan,
    )


class _Calls:
    """The route handlers."""

    def __init__(self, proxy: ProxyConfig) -> None:
        self._proxy, self._losses, self._reading = proxy, LogFailures(proxy.warn), asyncio.Semaphore(_READERS)
        # One connection per call: a kept-alive connection may have been closed by the server, for example after an
        # error of another client, and a call sent on it would be lost.
        self._client = httpx2.AsyncClient(
            base_url=proxy.url,
            timeout=httpx2.Timeout(proxy.config.timeout, connect=10),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
            verify=False,  # plain HTTP on loopback; loading certificates takes a third of a second
        )

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Close the connections at shutdown."""
        try:
            yield
        finally:
            await self._client.aclose()

    async def health(self, _: Request) -> Response:
        """200 while the model server responds, else 503 with the reason."""
        if (failure_text := self._proxy.failure_text()) is not None:
            return _error(503, failure_text)
        try:
            found = await self._client.get("/health", timeout=10)
        except httpx2.HTTPError as error:
            return _error(503, f"the model server does not respond ({type(error).__name__})")
        if found.status_code != 200:
            return _error(503, "the model server is unhealthy")
        lost = {"log": {"lost": self._losses.count, "reason": self._losses.reason}} if self._losses.count else {}
        return JSONResponse({"status": "ok"} | lost)

    async def models(self, request: Request) -> Response:
        """List the one model."""
        if not self._may_ask(request):
            return _unauthorized()
        return JSONResponse({"object": "list", "data": [{"id": self._proxy.model, "object": "model"}]})

    async def feedback(self, request: Request) -> Response:
        """Record a thumb, a correction, or both for a logged call."""
        if not self._may_ask(request):
            return _unauthorized()
        if self._proxy.log is None:
            return _error(404, "this server keeps no log, so it accepts no feedback")
        try:
            body = await _body(request, _FEEDBACK_BYTES)
            given = Feedback.model_validate(json.loads(body))
            if given.thumb is None and given.correction is None:
                raise RequestRejected(422, "send a thumb (up or down), a correction, or both")
        except RequestRejected as refused:
            return _error(refused.status, refused.sentence)
        except ValidationError as error:
            return _error(422, describe(error, Feedback))
        except (ValueError, RecursionError):
            return _error(400, "feedback must be a JSON object with id, thumb, correction")
        row = given.model_copy(update={"time": datetime.now(UTC).isoformat(timespec="seconds")})
        try:
            await asyncio.to_thread(self._proxy.log.add_feedback, row)
        except (OSError, ValueError) as error:
            self._losses.note(error)
            return _error(507, "the feedback cannot be saved; tell the operator of this server")
        return JSONResponse({"status": "ok"})

    async def chat(self, request: Request) -> Response:
        """Validate and forward a chat completion, and log it at its end."""
        proxy, start, when = self._proxy, time.monotonic(), datetime.now(UTC)
        if not self._may_ask(request):
            return _unauthorized()
        if (failure_text := proxy.failure_text()) is not None:
            return _error(503, failure_text)
        try:
            body = await _body(request, int(proxy.config.max_mb * 2**20))
            async with self._reading:
                chat_request = await asyncio.to_thread(
                    read_body, body, proxy.config, proxy.model, merges_system=proxy.merges_system
                )
        except RequestRejected as refused:
            return _error(refused.status, refused.sentence)
        call = _Call(uuid.uuid4().hex, when, start, chat_request)
        try:
            answer = await _cancel_on_disconnect(request, self._answer(call))
        except _ClientLeft:
            self._write(call, ParsedResponse(), _LEFT, "the client disconnected before the end")
            return Response(status_code=_LEFT)
        except httpx2.HTTPError as error:
            sentence = proxy.failure_text() or f"the model server does not respond ({type(error).__name__})"
            self._write(call, ParsedResponse(), 502, sentence)
            return _error(502, sentence, call.id)
        if isinstance(answer, httpx2.Response):
            parts = self._pass_on(answer, call)
            return StreamingResponse(parts, answer.status_code, {**_end_to_end_headers(answer), ID_HEADER: call.id})
        # The row is on disk before the client gets the answer, so that feedback finds it.
        self._write(call, read_answer(answer.body, is_stream=False), answer.status)
        return Response(answer.body, answer.status, {**answer.headers, ID_HEADER: call.id})

    async def _answer(self, call: "_Call") -> "httpx2.Response | _CompleteAnswer":
        """The server's answer: a started stream if one was requested, else the complete answer."""
        proxy = self._proxy
        body = call.request.body | {"model": proxy.upstream or proxy.model}
        if proxy.by_stream:
            body = {key: value for key, value in body.items() if key != "stream_options"} | {"stream": True}
        headers = {"content-type": "application/json", "accept-encoding": "identity", "x-request-id": call.id}
        passed_on = self._client.build_request("POST", _CHAT, content=json.dumps(body).encode(), headers=headers)
        answer = await self._client.send(passed_on, stream=True)
        is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
        if is_stream and call.request.is_stream:
            return answer
        try:
            chunks, size = list[bytes](), 0
            async for part in answer.aiter_raw():
                chunks.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    return _failure_answer(502, f"the answer is larger than {MOST_BYTES} bytes")
        finally:
            await answer.aclose()
        whole, status, kept = b"".join(chunks), answer.status_code, _end_to_end_headers(answer)
        if is_stream:
            status, whole = join_stream(whole)
            kept["content-type"] = "application/json"
        elif status >= 500 and not kept.get("content-type", "").startswith("application/json"):
            return _failure_answer(status, f"the model server failed on this request (status {status})")
        return _CompleteAnswer(status, with_model_name(whole, proxy.model), kept)

    async def _pass_on(self, answer: httpx2.Response, call: "_Call") -> AsyncIterator[bytes]:
        """Forward a stream's bytes as they arrive."""
        chunks, size, note, naming = (
            list[bytes](),
            0,
            "the client disconnected before the end",
            StreamRenamer(self._proxy.model),
        )

        def remember(part: bytes) -> bytes:
            nonlocal size
            if size < MOST_BYTES:
                chunks.append(part)
                size += len(part)
            return part

        try:
            async for part in answer.aiter_raw():
                if lines := naming.feed(part):
                    yield remember(lines)
            if lines := naming.rest():
                yield remember(lines)
            note = ""
        except httpx2.HTTPError as error:
            note = self._proxy.failure_text() or f"the model server broke off ({type(error).__name__})"
            raise
        finally:
            # No await before the row is written: a client that disconnected has cancelled this task.
            self._write(call, read_answer(b"".join(chunks), is_stream=True), answer.status_code, note)
            await answer.aclose()

    def _write(self, call: "_Call", response: ParsedResponse, status: int, note: str = "") -> None:
        """Log a call if there is a log; a log error never fails the answer."""
        if self._proxy.log is None:
            return
        ending = Ending(response, status, time.monotonic() - call.start, note)
        try:
            row = log_row(call.id, call.when, call.request, ending, self._proxy.config)
            write_call(self._proxy.log, row, call.request)
        except (OSError, ValueError) as error:
            self._losses.note(error)

    def _may_ask(self, request: Request) -> bool:
        """Whether a request carries the API key, if one is required (compared in constant time)."""
        if self._proxy.api_key is None:
            return True
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return hmac.compare_digest(key.strip().encode(), self._proxy.api_key.encode()) and scheme.lower() == "bearer"


@dataclass(frozen=True)
class _Call:
    """A call in progress."""

    id: str
    when: datetime
    start: float
    request: ChatRequest


@dataclass(frozen=True)
class _CompleteAnswer:
    """A complete answer."""

    status: int
    body: bytes
    headers: dict[str, str]


class _ClientLeft(Exception):
    """The client disconnected."""


async def _cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Run `work`, and cancel it if the client of the (fully read) request disconnects.

    Raises:
        _ClientLeft: the client disconnected first.
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
        raise _ClientLeft from error


async def _body(request: Request, limit: int) -> bytes:
    """Read the body of a request, never holding more than the limit in memory.

    Raises:
        RequestRejected: it is longer, is not declared as JSON, or the client disconnected.
    """
    # Browsers send other types cross-origin without a preflight; for JSON they send one, which is rejected.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestRejected(415, "the body must be of type application/json")
    declared = request.headers.get("content-length", "")
    parts, size = list[bytes](), int(declared) if declared.isdecimal() else 0
    too_long = f"the body is larger than {limit / 2**20:.3g} MiB; send smaller pictures"
    if size > limit:
        raise RequestRejected(413, too_long)
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise RequestRejected(413, too_long)
            parts.append(part)
    except ClientDisconnect as error:
        raise RequestRejected(400, "the client disconnected") from error
    return b"".join(parts)


def _error(status: int, sentence: str, call_id: str | None = None) -> Response:
    """An error response in OpenAI's format."""
    headers = {} if call_id is None else {ID_HEADER: call_id}
    return JSONResponse(failure(status, sentence), status, headers)


def _unauthorized() -> Response:
    answer = _error(401, "this server needs an API key: send the header Authorization: Bearer KEY")
    answer.headers["www-authenticate"] = "Bearer"
    return answer


def _failure_answer(status: int, sentence: str) -> _CompleteAnswer:
    return _CompleteAnswer(status, json.dumps(failure(status, sentence)).encode(), {"content-type": "application/json"})


def _end_to_end_headers(answer: httpx2.Response) -> dict[str, str]:
    """The headers of an answer to forward to the client."""
    return {name: value for name, value in answer.headers.items() if name.lower() not in _PER_HOP}


def _bracket_ipv6(host: str) -> str:
    """A host as written in a header: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
