"""The guard without a server: access to a page, request limits, and the messages for browsers."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from sightline.apps.guard import BindAddress, Guard, Uploads
from sightline.apps.web import open_socket
from sightline.errors import InputError

LOCAL = BindAddress(port=7861, max_bytes=100)
JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"
JSON = {"content-type": "application/json"}


def answered(
    door: BindAddress,
    method: str,
    headers: dict[str, str] | list[tuple[str, str]],
    bodies: tuple[bytes, ...] = (b"",),
    path: str = "/",
    uploads: Uploads | None = None,
) -> tuple[Any, Any]:
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

    pairs = headers.items() if isinstance(headers, dict) else headers
    raw = [(name.encode(), value.encode()) for name, value in pairs]
    scope = {"type": "http", "method": method, "headers": raw, "path": path}
    asyncio.run(Guard(app, door, uploads)(scope, receive, send))
    return sent[0], received


@pytest.mark.parametrize("host", ["127.0.0.1:7861", "localhost:7861", "LOCALHOST", "[::1]:7861"])
def test_the_page_itself_is_let_in(host: str) -> None:
    headers = {"host": host, "origin": f"http://{host}", **JSON}
    start, received = answered(LOCAL, "POST", headers, (b'{"data":', b" [1]}"), JOIN)
    assert (start["status"], received) == (200, [b'{"data": [1]}'])
    policy = dict(start["headers"])[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"host": "rebound.example:7861"}, 403),
        ("GET", {}, 400),
        ("GET", {"host": "[::1"}, 400),
        ("GET", {"host": "127.0.0.1:port"}, 400),
        ("GET", {"host": "user@127.0.0.1"}, 400),
        ("GET", {"host": "127.0.0.1:78610000"}, 400),
        ("GET", [("host", "127.0.0.1"), ("host", "localhost")], 400),
        ("POST", {"host": "127.0.0.1:7861", "origin": "http://other.example"}, 403),
        ("POST", {"host": "127.0.0.1:7861", "origin": "http://127.0.0.1:9000"}, 403),
        ("POST", {"host": "127.0.0.1:7861", "origin": "http://[::1"}, 403),
        ("POST", {"host": "127.0.0.1:7861", "origin": "null"}, 403),
        ("POST", {"host": "127.0.0.1:7861", "content-length": "101"}, 413),
        ("POST", {"host": "127.0.0.1:7861", "content-length": "-1"}, 413),
        ("POST", {"host": "127.0.0.1:7861", "content-length": "x"}, 413),
        ("POST", {"host": "127.0.0.1:7861", "content-length": "9" * 5000}, 413),
        ("POST", {"host": "127.0.0.1:7861", "content-type": "multipart/form-data; boundary=x"}, 415),
    ],
)
def test_others_are_not(method: str, headers: dict[str, str], status: int) -> None:
    start, received = answered(LOCAL, method, headers, path=JOIN if method == "POST" else "/")
    assert (start["status"], received) == (status, [])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/config", 200),
        ("GET", "/assets/index.js", 200),
        ("GET", "/gradio_api/heartbeat/abc", 200),
        ("POST", "/gradio_api/component_server/", 200),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/gradio_api/openapi.json", 404),
        ("GET", "/gradio_api/file=/etc/passwd", 404),
        ("GET", "/gradio_api/deep_link", 404),
        ("GET", "/monitoring", 404),
        ("POST", "/gradio_api/run/take", 404),
        ("POST", "/gradio_api/vibe-edit", 404),
        ("PUT", "/gradio_api/queue/join", 404),
        ("POST", UPLOAD, 403),
    ],
)
def test_only_what_a_page_uses_is_open(method: str, path: str, status: int) -> None:
    start, _ = answered(LOCAL, method, {"host": "localhost", **JSON}, (b"{}",), path)
    assert start["status"] == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"data": [{"path": "/etc/passwd"}]}', 403),
        (b'{"data": [[{"a": {"path": ["x"]}}]]}', 403),
        (b'{"data": [{"path": null}]}', 200),
        (b'{"data": [1], "data": [2]}', 400),
        (b'{"data": ', 400),
        ("{}".encode("utf-16"), 400),
        (b"[" * 90, 400),
        (b"[" * 50 + b"]" * 50, 200),
        (b"", 200),
    ],
)
def test_the_body_of_a_call_names_no_file(body: bytes, status: int) -> None:
    start, received = answered(LOCAL, "POST", {"host": "localhost", **JSON}, (body,), JOIN)
    assert (start["status"], received) == (status, [body] if status == 200 else [])


def test_a_body_that_grows_is_cut(tmp_path: Path) -> None:
    start, received = answered(LOCAL, "POST", {"host": "localhost", **JSON}, (b"a" * 60, b"b" * 60, b"c"), JOIN)
    assert (start["status"], received) == (413, [])
    uploads = Uploads(tmp_path, 1000)
    _, received = answered(LOCAL, "POST", {"host": "localhost"}, (b"a" * 60, b"b" * 60, b"c"), UPLOAD, uploads)
    assert received == [b"a" * 60, "http.disconnect"]


def test_an_open_door_lets_names_in_and_keeps_the_rest() -> None:
    door = BindAddress("0.0.0.0", 7861, 100)
    assert not door.is_local
    assert answered(door, "GET", {"host": "lab-machine:7861"})[0]["status"] == 200
    assert answered(door, "POST", {"host": "lab-machine:7861", "origin": "http://other"})[0]["status"] == 403


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1 port {port} cannot be opened .*; choose another --port"):
            open_socket(BindAddress(port=port))
    with pytest.raises(InputError, match=r"203\.0\.113\.9 port 0 cannot be opened"):
        open_socket(BindAddress("203.0.113.9", 0))
