"""A real HTTP server on loopback with vLLM's routes for adapters: it answers by running a model with what it is handed.

Its model is opened from the directory, apart from the trainer's; pictures come to it as they come to any server.
"""

import contextlib
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sightline.models.encoding import encode_prefix
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Prefix, Sampling
from sightline.models.sampler import generate
from sightline.models.vlm import VLM
from sightline.records.rows import IMAGE, Turn
from tests.judges.local_server import Act, answer, completion, decoded, status


@dataclass
class Served:
    """What the server has and heard; `takes_adapters` False: as vLLM without the switch, the routes are not there.

    One that is `gone` hangs up on every call. Under `name` it lists and serves the model without an adapter. `fault`
    answers a call in its place, if it returns something.
    """

    model_dir: Path
    takes_adapters: bool = True
    gone: bool = False
    name: str | None = None
    fault: Callable[[dict[str, Any]], Act | None] = lambda _: None
    adapters: dict[str, VLM] = field(default_factory=dict)
    posted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def base(self) -> VLM:
        return load_vlm(self.model_dir)

    def model(self, name: str) -> VLM | None:
        return self.base if name == self.name else self.adapters.get(name)

    def calls(self, route: str) -> list[dict[str, Any]]:
        return [body for path, body in self.posted if path == f"/v1/{route}"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Served

    def handle(self) -> None:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # the client lost patience
            super().handle()

    def do_GET(self) -> None:
        own = [] if self.served.name is None else [{"id": self.served.name, "root": str(self.served.model_dir)}]
        adapters = [{"id": name, "parent": self.served.name} for name in self.served.adapters]
        found = {"object": "list", "data": [*own, *adapters]}
        status(200 if self.path == "/v1/models" else 404, found)(self)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.served.gone:
            self.close_connection = True
            self.connection.close()
            return
        with self.served.lock:  # one call at a time: the model is one
            self.served.posted.append((self.path, body))
            routes = {"/v1/chat/completions": self._complete}
            if self.served.takes_adapters:
                routes |= {"/v1/load_lora_adapter": self._load, "/v1/unload_lora_adapter": self._unload}
            if self.path in routes:
                routes[self.path](body)
            else:
                status(404, {"detail": "Not Found"})(self)

    def _load(self, body: dict[str, Any]) -> None:
        name = body["lora_name"]
        if name in self.served.adapters:
            status(400, {"error": {"message": f"{name} is loaded"}})(self)
            return
        self.served.adapters[name] = load_vlm(self.served.model_dir, adapter=Path(body["lora_path"]))
        answer(200, b"Success", "text/plain")(self)

    def _unload(self, body: dict[str, Any]) -> None:
        if self.served.adapters.pop(body["lora_name"], None) is None:
            status(404, {"error": {"message": "no such adapter"}})(self)
        else:
            answer(200, b"Success", "text/plain")(self)

    def _complete(self, body: dict[str, Any]) -> None:
        vlm, fault = self.served.model(body["model"]), self.served.fault(body)
        if vlm is None or fault is not None:
            (fault or status(404, {"error": {"message": f"no model {body['model']}"}}))(self)
            return
        with tempfile.TemporaryDirectory() as folder:
            request = GenerateRequest(_prefix(body["messages"], Path(folder)), seed=body["seed"])
            stop = tuple(body.get("stop", ()))
            assert bool(stop) == body.get("include_stop_str_in_output", False)
            sampling = Sampling(body["max_tokens"], body["temperature"], body.get("top_p", 1.0), stop)
            (generation,) = generate(vlm, [request], sampling, batch_size=1)
            # vLLM returns the space that the template puts before an answer; `generate` does not.
            lead = encode_prefix(vlm, request.prefix).lead
        reason = "stop" if generation.finished else "length"
        answer(200, completion(lead + generation.text, reason, generation.tokens))(self)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _prefix(messages: list[dict[str, Any]], folder: Path) -> Prefix:
    """What the trainer asked, with its pictures in files of our own."""
    images: list[Path] = []
    texts: list[str] = []
    for message in messages:
        text = ""
        for part in [message["content"]] if isinstance(message["content"], str) else message["content"]:
            if isinstance(part, str) or part["type"] == "text":
                text += part if isinstance(part, str) else part["text"]
            else:
                images.append(folder / f"{len(images)}.png")
                decoded(part["image_url"]["url"]).save(images[-1])
                text += IMAGE
        texts.append(text)
    turns = zip(messages[:-1], texts[:-1], strict=True)
    history = tuple(Turn(role=message["role"], text=text) for message, text in turns)
    return Prefix(tuple(images), texts[-1], history)


@contextlib.contextmanager
def serving_adapters(
    model_dir: Path, *, takes_adapters: bool = True, name: str | None = None
) -> Iterator[tuple[str, Served]]:
    """The server's base_url, and what it has and heard."""
    served = Served(model_dir, takes_adapters, name=name)

    class Handler(_Handler):
        pass

    Handler.served = served
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
