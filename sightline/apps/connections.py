"""Connection limits of a server: how many, and how long a client may take to send a request and read the response.

Uvicorn has no timeout before a request is complete, so a client that sends half a request holds its connection
forever. `limited_protocol` gives uvicorn a protocol that closes such connections.
"""

import asyncio
import time
from dataclasses import dataclass

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

#: Connections the event loop accepts before the protocol sees the first; the rest wait in the system's queue.
BACKLOG = 64


@dataclass(frozen=True)
class ConnectionLimits:
    """At most `count` connections; seconds for a request's headers, its body, and a client that stops reading."""

    count: int = 100
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    read_seconds: float = 60.0


def _closing_answer(status: bytes, sentence: bytes) -> bytes:
    head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close" % len(sentence)
    return b"HTTP/1.1 %s\r\n%s\r\n\r\n%s" % (status, head, sentence)


_BUSY = _closing_answer(b"503 Service Unavailable", b"The server has too many connections; try again later.")
_TOO_SLOW = _closing_answer(b"408 Request Timeout", b"The request was not complete in time.")


def limited_protocol(limits: ConnectionLimits) -> type[H11Protocol]:
    """A protocol class for `uvicorn.Config(http=...)` that enforces the limits."""

    class Limited(_LimitedProtocol):
        pass

    Limited.limits = limits
    return Limited


class _LimitedProtocol(H11Protocol):
    """One connection. A deadline runs until the last byte of a request arrives."""

    limits = ConnectionLimits()
    _awaited: type[h11.IDLE] | type[h11.SEND_BODY] | None = None
    _since = 0.0
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.count and not self._make_room():
            transport.write(_BUSY)
            transport.close()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.limits.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled = _stop(self._stalled)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline, self._stalled = _stop(self._deadline), _stop(self._stalled)
        super().connection_lost(exc)

    @property
    def is_spare(self) -> bool:
        """Whether no complete request is being answered: the connection is idle, incomplete or closing."""
        return self.transport.is_closing() or self._awaited is not None

    def _make_room(self) -> bool:
        """Close the connection that has waited longest without a request; False if all are in use.

        Otherwise clients that send nothing would lock out those with requests.
        """
        others = (one for one in self.connections if isinstance(one, _LimitedProtocol) and one is not self)
        spare = min((one for one in others if one.is_spare), key=lambda one: one._since, default=None)
        if spare is None:
            return False
        self.connections.discard(spare)
        spare.transport.abort()
        return True

    def _watch(self) -> None:
        """Start, keep or stop the deadline, depending on what the client still has to send."""
        state = self.conn.their_state
        awaited = state if state in (h11.IDLE, h11.SEND_BODY) and not self.transport.is_closing() else None
        if awaited is self._awaited:
            return
        self._deadline, self._awaited, self._since = _stop(self._deadline), awaited, time.monotonic()
        if awaited is not None:
            seconds = self.limits.header_seconds if awaited is h11.IDLE else self.limits.body_seconds
            self._deadline = self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_TOO_SLOW)
        self.transport.close()


def _stop(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer; returns None to store in its place."""
    if timer is not None:
        timer.cancel()
    return None
