"""Clients of the door that send half a request, or hold a connection: closed in time, and in nobody's way."""

import socket
import time

from tests.apps.conftest import chat, door_before
from tests.judges.local_server import echo, hang

PATH = "/v1/chat/completions"


def half_sent(port: int | None, text: str) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port or 0), timeout=20)
    one.sendall(text.encode())
    return one


HEAD = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HALF_BODY = f"{HEAD}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"


def test_slow_clients_are_closed_in_time() -> None:
    with door_before(echo, header_seconds=0.4, body_seconds=0.8) as client:
        port, start = client.base_url.port, time.monotonic()
        slow = {"head": half_sent(port, f"{HEAD}X-a: "), "body": half_sent(port, HALF_BODY)}
        after = half_sent(port, "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /v1/models HTTP/1.1\r\nHo")
        took = {}
        for name, one in slow.items():
            while part := one.recv(1000):
                assert part.startswith(b"HTTP/1.1 408 ")
            took[name] = time.monotonic() - start
            one.close()
        whole = b""
        while part := after.recv(1000):
            whole += part
        after.close()
        assert whole.startswith(b"HTTP/1.1 200") and b"HTTP/1.1 408" in whole
        assert client.post(PATH, json=chat("x")).status_code == 200
    assert took["head"] >= 0.35 and took["body"] >= 0.75 and took["body"] < 15


def test_slow_clients_keep_nobody_out() -> None:
    with door_before(echo, max_connections=4, header_seconds=60, body_seconds=60) as client:
        port = client.base_url.port
        slow = [half_sent(port, f"{HEAD}X-a: " if number % 2 else HALF_BODY) for number in range(12)]
        assert client.post(PATH, json=chat("x")).status_code == 200
        closed = 0
        for one in slow:
            one.setblocking(False)
            try:
                closed += one.recv(10) == b""
            except BlockingIOError:
                pass
            except ConnectionError:
                closed += 1
            one.close()
        assert closed >= 9


def test_connections_in_use_are_limited() -> None:
    with door_before(lambda body, number: hang, max_connections=2) as client:
        data = b'{"messages": [{"role": "user", "content": "x"}]}'
        text = f"{HEAD}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n{data.decode()}"
        busy = [half_sent(client.base_url.port, text) for _ in range(2)]
        time.sleep(0.5)  # both are being answered
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=20) as third:
            assert third.recv(1000).startswith(b"HTTP/1.1 503 ")
        for one in busy:
            one.close()
