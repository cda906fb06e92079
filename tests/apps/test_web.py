"""Who may reach a page, what a request may weigh, and what a browser is told: the guard, without any server."""

import asyncio
import socket
from typing import Any

import pytest

from sightline.apps.web import Door, Guard, open_door
from sightline.errors import InputError

LOCAL = Door(port=7861, max_bytes=100)


def answered(door: Door, method: str, headers: dict[str, str], bodies: tuple[bytes, ...] = (b"",)) -> tuple[Any, Any]:
    """Status and headers that the browser gets, and what the page behind the guard received."""
    sent: list[Any] = []
    received: list[Any] = []
    waiting = list(bodies)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            received.append(message["body"])
            if not message["more_body"]:
                break
        else:
            received.append(message["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    async def receive() -> Any:
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(Guard(app, door)({"type": "http", "method": method, "headers": raw}, receive, send))
    return sent[0], received


@pytest.mark.parametrize("host", ["127.0.0.1:7861", "localhost:7861", "LOCALHOST", "[::1]:7861"])
def test_the_page_itself_is_let_in(host: str) -> None:
    start, received = answered(LOCAL, "POST", {"host": host, "origin": f"http://{host}"}, (b"a" * 60, b"b" * 40))
    assert start["status"] == 200
    assert received == [b"a" * 60, b"b" * 40]
    policy = dict(start["headers"])[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"host": "rebound.example:7861"}, 403),
        ("GET", {}, 403),
        ("POST", {"host": "127.0.0.1:7861", "origin": "http://other.example"}, 403),
        ("POST", {"host": "127.0.0.1:7861", "origin": "http://127.0.0.1:9000"}, 403),
        ("POST", {"host": "127.0.0.1:7861", "origin": "null"}, 403),
        ("POST", {"host": "127.0.0.1:7861", "content-length": "101"}, 413),
        ("POST", {"host": "127.0.0.1:7861", "content-length": "-1"}, 413),
        ("POST", {"host": "127.0.0.1:7861", "content-length": "x"}, 413),
    ],
)
def test_others_are_not(method: str, headers: dict[str, str], status: int) -> None:
    start, received = answered(LOCAL, method, headers)
    assert (start["status"], received) == (status, [])


def test_a_body_that_grows_is_cut() -> None:
    _, received = answered(LOCAL, "POST", {"host": "localhost"}, (b"a" * 60, b"b" * 60, b"c"))
    assert received == [b"a" * 60, "http.disconnect"]


def test_an_open_door_lets_names_in_and_keeps_the_rest() -> None:
    door = Door("0.0.0.0", 7861, 100)
    assert not door.is_local
    assert answered(door, "GET", {"host": "lab-machine:7861"})[0]["status"] == 200
    assert answered(door, "POST", {"host": "lab-machine:7861", "origin": "http://other"})[0]["status"] == 403


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1 port {port} cannot be opened .*; choose another --port"):
            open_door(Door(port=port))
    with pytest.raises(InputError, match=r"203\.0\.113\.9 port 0 cannot be opened"):
        open_door(Door("203.0.113.9", 0))
