"""A real HTTP server on loopback that answers chat completions by a test's script, well or badly."""

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from sightline.endpoint import Endpoint, EndpointConfig

Body = dict[str, Any]
#: What is done with one call: it writes to the handler whatever it likes.
Act = Callable[[BaseHTTPRequestHandler], None]
#: Which act, by the call's body and its number from 0.
Script = Callable[[Body, int], Act]


@dataclass
class Heard:
    """What the server saw. `most` is how many calls it had at once."""

    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    now: int = 0
    most: int = 0

    def texts(self) -> list[str]:
        return [text_of(body) for body in self.bodies]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script
    heard: Heard
    closing: threading.Event
    lock: threading.Lock

    def handle(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            super().handle()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            number = len(self.heard.bodies)
            self.heard.bodies.append(body)
            self.heard.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.heard.now += 1
            self.heard.most = max(self.heard.most, self.heard.now)
        try:
            if self.path != "/v1/chat/completions":
                status(404, {"error": {"message": f"no route {self.path}"}})(self)
            else:
                self.script(body, number)(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client lost patience
        finally:
            with self.lock:
                self.heard.now -= 1

    def do_GET(self) -> None:
        """It is well."""
        status(200 if self.path == "/health" else 404, {})(self)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def answer(code: int, data: bytes, kind: str = "application/json", headers: dict[str, str] | None = None) -> Act:
    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return act


def completion(text: str | None, finish: str = "stop", tokens: int = 7, **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return json.dumps({"id": "1", "choices": [choice], "usage": {"completion_tokens": tokens}}).encode()


def say(text: str | None, finish: str = "stop", tokens: int = 7, **message: Any) -> Act:
    return answer(200, completion(text, finish, tokens, **message))


def status(code: int, body: Any, headers: dict[str, str] | None = None) -> Act:
    return answer(code, json.dumps(body).encode(), headers=headers)


def echo(body: Body, number: int) -> Act:
    return say(f"to {text_of(body)}")


def in_turn(*acts: Act) -> Script:
    """The first call gets the first act and so on; the last is repeated."""
    return lambda body, number: acts[min(number, len(acts) - 1)]


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Say nothing until the server is closed."""
    assert isinstance(handler, Handler)
    handler.closing.wait(60)
    handler.close_connection = True


def dribble(handler: BaseHTTPRequestHandler) -> None:
    """White space now and then, as some gateways send it to keep a connection; no answer ever."""
    assert isinstance(handler, Handler)
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b" ")
        if handler.closing.wait(0.1):
            break
    handler.close_connection = True


def cut_off_connection(sent: int) -> Act:
    """The line goes dead after so many bytes of a fine answer; 0: before its first."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        data = completion("Score: 9")
        if sent:
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[:sent])
        handler.close_connection = True

    return act


@contextlib.contextmanager
def serving(script: Script, port: int = 0) -> Iterator[tuple[str, Heard]]:
    """The server's base_url, and what it hears."""
    heard, closing = Heard(), threading.Event()

    class Scripted(Handler):
        pass

    Scripted.script, Scripted.heard = staticmethod(script), heard
    Scripted.closing, Scripted.lock = closing, threading.Lock()
    server = ThreadingHTTPServer(("127.0.0.1", port), Scripted)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", heard
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def text_of(body: Body) -> str:
    """What the user said, without the pictures."""
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def pictures_of(body: Body) -> list[Image.Image]:
    """The pictures of a call, decoded from their data URLs."""
    content = body["messages"][0]["content"]
    parts = [] if isinstance(content, str) else content
    found: list[Image.Image] = []
    for part in parts:
        if part["type"] == "image_url":
            found.append(decoded(part["image_url"]["url"]))
    return found


def decoded(url: str) -> Image.Image:
    """The picture of a data URL."""
    head, _, data = url.partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    image.load()
    assert head == f"data:image/{str(image.format).lower()};base64"
    return image


def endpoint(url: str, **settings: object) -> Endpoint:
    """A client of the server at `url`."""
    return Endpoint(EndpointConfig.model_validate({"base_url": url, "model": "m", "timeout": 5, **settings}))
