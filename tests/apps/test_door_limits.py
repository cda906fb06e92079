"""The door against careless and hostile clients: limits, refused parameters, clients that leave or are slow, keys."""

import base64
import http.client
import io
import json
import select
import shutil
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sightline.apps.serve.engine import server_command
from sightline.cli.deploy import read_key
from sightline.data.request_log import RequestLog, log_file, read_log
from sightline.errors import InputError
from sightline.records.ratings import Feedback, LoggedRequest
from sightline.records.store import private_umask
from tests.apps.conftest import chat, data_url, door_before, lines
from tests.judges.local_server import Act, Body, answer, cut_off_connection, echo, say

PATH = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


def message_of(response: httpx2.Response) -> str:
    text: str = response.json()["error"]["message"]
    return text


def raw_body(**parameters: str) -> bytes:
    """A body whose parameters are JSON as it stands here."""
    more = "".join(f', "{name}": {value}' for name, value in parameters.items())
    return f'{{"messages": [{{"role": "user", "content": "x"}}]{more}}}'.encode()


def wait_for(found: Any, seconds: float = 20.0) -> None:
    """Until `found()` is true."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def door() -> Any:
    """A client of a door with narrow limits, and the bodies that came through it."""
    seen: list[Body] = []

    def script(body: Body, number: int) -> Act:
        seen.append(body)
        return say("A cup.")

    limits: dict[str, Any] = {
        "max_images": 3,
        "max_pixels": 1000,
        "max_call_pixels": 2000,
        "max_tokens": 50,
        "default_tokens": 20,
    }
    with door_before(script, **limits) as client:
        yield client, seen


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"max_tokens": '"a"'}, "max_tokens = 'a'"),
        ({"max_tokens": "NaN"}, "max_tokens = nan"),
        ({"max_tokens": "1e400"}, "max_tokens = inf"),
        ({"max_tokens": "true"}, "max_tokens = True"),
        ({"max_tokens": "0"}, "max_tokens = 0"),
        ({"max_tokens": "51"}, "max_tokens = 51: the limit is 50 tokens"),
        ({"max_completion_tokens": "51", "max_tokens": "4"}, "max_completion_tokens = 51: the limit is 50"),
        ({"max_tokens": "9" * 5000}, "max_tokens = inf"),
        ({"seed": "9" * 5000}, "seed = inf"),
        ({"temperature": "NaN"}, "temperature = nan"),
        ({"temperature": "1e400"}, "temperature = inf"),
        ({"temperature": '"hot"'}, "temperature = 'hot'"),
        ({"top_p": "0"}, "top_p = 0"),
        ({"n": "2"}, "n = 2"),
        ({"stop": "[1]"}, "stop"),
        ({"stream": '"yes"'}, "stream = 'yes'"),
        ({"logit_bias": '{"x": 1}'}, "logit_bias"),
        ({"chat_template_kwargs": "{}"}, "'chat_template_kwargs' is not supported"),
        ({"generation_config": '"{}"'}, "'generation_config' is not supported"),
        ({"min_tokens": "3"}, "'min_tokens' is not supported"),
        ({"response_format": '{"type": "json_object"}'}, "'response_format' is not supported"),
        ({"user": '"\\ud800"'}, "lone surrogates"),
        ({"model": '"\\ud800"'}, "lone surrogates"),
    ],
)
def test_a_bad_parameter_is_named(door: Any, parameters: dict[str, str], sentence: str) -> None:
    client, seen = door
    count = len(seen)
    refused = client.post(PATH, content=raw_body(**parameters), headers=JSON)
    assert (refused.status_code, len(seen)) == (400, count)
    assert sentence in message_of(refused)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("\ud800 x", "lone surrogates"),
        ("what is <image>?", "must not contain <image>"),
        ([{"type": "image_url", "image_url": {"url": data_url().replace("image/png", "text/plain")}}], "text/plain"),
        ({"type": "text", "text": "x"}, "content must be a string or a list of parts"),
    ],
)
def test_a_bad_message_is_refused(door: Any, content: Any, sentence: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": content}]})
    refused = door[0].post(PATH, content=body.encode(), headers=JSON)
    assert refused.status_code == 400 and sentence in message_of(refused)


def test_what_is_passed_on_is_what_was_read(door: Any) -> None:
    client, seen = door
    body = chat(
        "x", data_url(), temperature=0.5, n=1, user="u", seed=3, stop=["\n"], max_completion_tokens=7, top_p=None
    )
    body["messages"][0]["tool_calls"] = None
    body["messages"][0]["content"][0]["image_url"]["more"] = "y"
    assert client.post(PATH, json=body).status_code == 200
    del body["messages"][0]["tool_calls"], body["messages"][0]["content"][0]["image_url"]["more"]
    expected = {"model": "m", "messages": body["messages"], "temperature": 0.5, "seed": 3, "stop": ["\n"]}
    assert seen[-1] == {**expected, "max_tokens": 7}
    client.post(PATH, json={"messages": [{"role": "user", "content": "x"}]})
    assert seen[-1] == {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 20}


def test_the_pictures_of_a_call_have_a_limit_together(door: Any) -> None:
    client, _ = door
    small, middle = data_url((10, 10)), data_url((30, 30))
    many = client.post(PATH, json=chat("x", *[small] * 4))
    assert many.status_code == 413 and message_of(many) == "the call has 4 pictures; the limit is 3"
    large = client.post(PATH, json=chat("x", *[middle] * 3))
    assert large.status_code == 413 and "have 2700 pixels together; the limit is 2000" in message_of(large)
    assert client.post(PATH, json=chat("x", middle, middle, small)).status_code == 200


def bomb_of_pixels() -> Image.Image:
    return Image.new("1", (14_000, 14_000))


def bomb_of_text() -> PngInfo:
    """Three MiB in some KiB, which unpack while the header is read."""
    info = PngInfo()
    info.add_text("comment", "x" * 3 * 2**20, zip=True)
    return info


@pytest.mark.parametrize(
    ("image", "options", "status", "sentence"),
    [
        (
            bomb_of_pixels(),
            {},
            413,
            "a picture has 196000000 pixels, as a decompression bomb has; the limit is 1000, send it smaller",
        ),
        (
            Image.new("1", (4, 4)),
            {"pnginfo": bomb_of_text()},
            413,
            "a PNG picture has compressed text of more than 1048576 bytes, as a decompression bomb has; send it "
            "without that text",
        ),
    ],
    ids=["pixels", "text"],
)
def test_a_decompression_bomb_is_called_by_its_name(
    door: Any, image: Image.Image, options: dict[str, Any], status: int, sentence: str
) -> None:
    client, seen = door
    buffer, count = io.BytesIO(), len(seen)
    image.save(buffer, "PNG", **options)
    assert len(buffer.getvalue()) < 100_000
    bomb = client.post(PATH, json=chat("x", f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"))
    assert (bomb.status_code, message_of(bomb), len(seen)) == (status, sentence, count)


def test_what_is_no_image_and_what_is_damaged_are_told_apart(door: Any) -> None:
    client, _ = door
    sentences = {
        b"GIF": "a picture is not an image (PNG, JPEG, WEBP, GIF, BMP, TIFF, PPM, AVIF are supported)",
        b"P6\n9 9\n": "a picture is damaged (Reached EOF while reading header)",
    }
    for data, sentence in sentences.items():
        refused = client.post(PATH, json=chat("x", f"data:image/png;base64,{base64.b64encode(data).decode()}"))
        assert (refused.status_code, message_of(refused)) == (400, sentence)


def test_strange_headers_do_no_harm(door: Any) -> None:
    client, _ = door
    port = client.base_url.port
    for header, value, code in (("X-A", "\xe9", 200), ("Accept-Encoding", "gzip", 200), ("Host", "[::1", 400)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("POST", PATH, raw_body(), {**JSON, header: value})
        assert connection.getresponse().status == code
        connection.close()


def test_another_model_is_not_served(door: Any) -> None:
    client, _ = door
    refused = client.post(PATH, content=raw_body(model='"/etc"'), headers=JSON)
    assert refused.status_code == 404 and "name 'm', or leave it out" in message_of(refused)


def stream_of(model: str, *, fails: bool = False, ends: bool = True) -> Act:
    """A stream as `transformers serve` writes it."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        head = {"id": "1", "created": 5, "model": model, "object": "chat.completion.chunk"}
        events: list[dict[str, Any]] = [{**head, "choices": [{"index": 0, "delta": {"role": "assistant"}}]}]
        events += [
            {**head, "choices": [{"index": 0, "delta": {"content": text}}]} for text in (" A", " \u00e9t\u00e9\n")
        ]
        if fails:
            events.append({"error": "out of memory"})
        elif ends:
            end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "usage": {"completion_tokens": 2}}
            events.append(head | end)
        for event in events:
            handler.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        handler.close_connection = True

    return act


def test_a_whole_answer_is_put_together_from_a_stream_under_the_served_name(log: Path) -> None:
    seen: list[Body] = []
    acts = [stream_of("/home/me/model@main")] * 2
    acts += [
        stream_of("p", fails=True),
        stream_of("p", ends=False),
        answer(500, b"Internal Server Error", "text/plain"),
    ]

    def script(body: Body, number: int) -> Act:
        seen.append(body)
        return acts[number]

    with door_before(script, log, model="mine", upstream="/home/me/model", by_stream=True) as client:
        whole = client.post(PATH, json=chat("x") | {"model": "mine"})
        streamed = client.post(PATH, json=chat("x", stream=True) | {"model": "mine"})
        failed, torn, broken = (client.post(PATH, content=raw_body(), headers=JSON) for _ in range(3))
        listed = client.get("/v1/models").json()["data"]
    assert [(body["model"], body["stream"]) for body in seen] == [("/home/me/model", True)] * 5
    completion = whole.json()
    assert whole.headers["content-type"] == "application/json" and completion["object"] == "chat.completion"
    assert (completion["model"], listed[0]["id"]) == ("mine", "mine")
    message = {"role": "assistant", "content": " A \u00e9t\u00e9\n"}
    assert completion["choices"] == [{"index": 0, "message": message, "finish_reason": "length"}]
    assert completion["usage"] == {"completion_tokens": 2}
    pieces = [json.loads(line[5:]) for line in streamed.text.splitlines() if line.startswith("data:")]
    assert {piece["model"] for piece in pieces} == {"mine"} and len(pieces) == 4
    assert "/home" not in whole.text + streamed.text + log_file(log, 1).read_text()
    assert (failed.status_code, torn.status_code, broken.status_code) == (500, 502, 500)
    assert "out of memory" in message_of(failed) and "broke off" in message_of(torn)
    assert message_of(broken) == "the model server failed on this request (status 500)"
    rows = [row for row, _ in read_log(log)]
    assert [row.answer for row in rows] == [message["content"]] * 2 + [None] * 3
    assert [row.status for row in rows] == [200, 200, 500, 502, 500]


def test_a_connection_that_the_server_drops_hurts_nobody_else() -> None:
    """The server takes one request a connection and drops the connection at the second, without a word before."""
    counts: dict[int, int] = {}

    def script(body: Body, number: int) -> Act:
        def act(handler: BaseHTTPRequestHandler) -> None:
            port = handler.client_address[1]
            counts[port] = counts.get(port, 0) + 1
            (say("A cup.") if counts[port] == 1 else cut_off_connection(0))(handler)

        return act

    with door_before(script) as client:
        assert [client.post(PATH, json=chat("x")).status_code for _ in range(4)] == [200] * 4


@pytest.mark.parametrize("by_stream", [False, True])
@pytest.mark.parametrize("is_stream", [False, True])
def test_who_leaves_ends_the_work(log: Path, by_stream: bool, is_stream: bool) -> None:
    """The server's connection is closed at once; what the log says is true."""
    begun, ended = threading.Event(), threading.Event()

    def act(handler: BaseHTTPRequestHandler) -> None:
        streams = by_stream or is_stream
        if streams:
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream")
            handler.end_headers()
            handler.wfile.write(b'data: {"choices": [{"delta": {"content": "A"}}]}\n\n')
        begun.set()
        if select.select([handler.connection], [], [], 20)[0] and handler.connection.recv(1) == b"":
            ended.set()
        handler.close_connection = True

    with door_before(lambda body, number: act, log, by_stream=by_stream) as client:
        data = json.dumps(chat("x", stream=is_stream)).encode()
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as leaver:
            head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            leaver.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            assert begun.wait(20)
            time.sleep(0.2)
        assert ended.wait(5)
        wait_for(lambda: any(log.glob("requests-*")) and any(read_log(log)))
        ((row, _),) = read_log(log)
    assert row.note == "the client disconnected before the end" and row.status == (200 if is_stream else 499)
    assert row.seconds >= 0.2


def test_a_failed_call_says_how_long_it_took(log: Path) -> None:
    def act(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.3)
        handler.close_connection = True

    with door_before(lambda body, number: act, log) as client:
        assert client.post(PATH, json=chat("x")).status_code == 502
    ((row, _),) = read_log(log)
    assert row.status == 502 and row.seconds >= 0.3


def test_a_log_that_cannot_be_written_breaks_no_answer(log: Path) -> None:
    warnings: list[str] = []
    with door_before(echo, log, warn=warnings.append) as client:
        assert client.post(PATH, json=chat("one")).status_code == 200
        assert client.get("/health").json() == {"status": "ok"}
        shutil.rmtree(log)
        answers = [client.post(PATH, json=chat("two", stream=number == 1)) for number in range(3)]
        call = {"id": "0" * 32, "thumb": "up"}
        log.write_text("no directory")
        lost = client.post("/feedback", json=call)
        health = client.get("/health")
    assert [one.json()["choices"][0]["message"]["content"] for one in answers] == ["to two"] * 3
    assert lost.status_code == 507 and "cannot be saved" in message_of(lost)
    assert health.json()["status"] == "ok" and health.json()["log"]["lost"] == 4
    assert len(warnings) == 1 and "No such file or directory" in warnings[0]


def test_an_answer_with_half_a_character_is_written_down(log: Path) -> None:
    """JSON can say a lone surrogate; a server that cuts an emoji in two does."""
    reply = b'{"choices": [{"message": {"content": "A cup \\ud83d"}, "finish_reason": "stop"}]}'
    with door_before(lambda body, number: answer(200, reply), log) as client:
        assert client.post(PATH, json=chat("x")).content == reply
    ((row, _),) = read_log(log)
    assert row.answer == "A cup \N{REPLACEMENT CHARACTER}"


def test_a_key_is_wanted_where_there_is_one() -> None:
    with door_before(echo, api_key="s3cret-Key") as client:
        for headers in ({}, {"authorization": "Bearer s3cret-Ke"}, {"authorization": "Basic s3cret-Key"}):
            for refused in (
                client.post(PATH, json=chat("x"), headers=headers),
                client.get("/v1/models", headers=headers),
                client.post("/feedback", json={}, headers=headers),
            ):
                assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/health").status_code == 200
        headers = {"authorization": "Bearer s3cret-Key"}
        assert client.post(PATH, json=chat("x"), headers=headers).status_code == 200
        assert client.get("/v1/models", headers=headers).status_code == 200


def test_a_key_is_read_from_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOOR_KEY", " abc-123 ")
    (tmp_path / "key").write_text("def-456\n")
    (tmp_path / "empty").write_text("\n")
    assert read_key("DOOR_KEY") == "abc-123" and read_key(str(tmp_path / "key")) == "def-456"
    with pytest.raises(InputError, match="holds no key"):
        read_key(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="neither a set environment variable nor a readable file") as caught:
        read_key("abc-123-the-key-itself")
    assert "abc-123" not in str(caught.value)


def test_private_files_are_their_owners(tmp_path: Path) -> None:
    with private_umask():
        log = RequestLog(tmp_path / "log", 10**6)
        log.add(LoggedRequest(id="0" * 32, time="", model="m"))
        log.add_feedback(Feedback(id="0" * 32, thumb="up"))
        log.keep("a" * 64, b"x")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "log").rglob("*")}
    names = {"requests-000001.jsonl": 0o600, "feedback.jsonl": 0o600, "images": 0o700, "a" * 32: 0o600}
    assert modes == names and (tmp_path / "log").stat().st_mode & 0o777 == 0o700
    (tmp_path / "after").write_text("")
    assert (tmp_path / "after").stat().st_mode & 0o777 != 0o600
    assert len(lines(tmp_path / "log" / "feedback.jsonl")) == 1


def test_vllm_knows_the_model_by_its_served_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    from sightline.apps.serve.config import ServeConfig

    words = server_command("vllm", "/models/m", 1, ServeConfig(), name="mine")
    assert words[2] == "/models/m" and words[words.index("--served-model-name") + 1] == "mine"
