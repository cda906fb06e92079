"""The door: what goes through untouched, what is refused with which sentence, what the log then holds."""

import hashlib
import json
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from sightline.data.request_log import picture_file, read_feedback, read_log
from sightline.records.ratings import LoggedRequest
from tests.apps.conftest import chat, data_url, door_before, lines
from tests.judges.local_server import Body, cut_off_connection, echo, pictures_of, say, status

PIECES = ("A red", " cup", ", and\n<script>alert(1)</script>")


def stream(handler: BaseHTTPRequestHandler) -> None:
    """Server-sent events, one an instant, as OpenAI's servers send them."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    events: list[Any] = [{"choices": [{"delta": {"role": "assistant"}}]}]
    events += [{"choices": [{"delta": {"content": piece}}]} for piece in PIECES]
    events.append({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"completion_tokens": 9}})
    for event in (*map(json.dumps, events), "[DONE]"):
        data = f"data: {event}\n\n".encode()
        handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        handler.wfile.flush()
        time.sleep(0.02)
    handler.wfile.write(b"0\r\n\r\n")


def rows(log: Path, count: int = 1) -> list[LoggedRequest]:
    """The rows of a log once there are so many: a row is written when its answer is over, unseen by its client."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found = [row for row, _ in read_log(log)] if any(log.glob("requests-*")) else []
        if len(found) >= count:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{len(found)} rows in time")


def test_an_answer_goes_through_and_is_written_down(log: Path) -> None:
    url = data_url()
    with door_before(lambda body, number: say("Yes, a cup.", tokens=5), log) as client:
        answer = client.post("/v1/chat/completions", json=chat("Is there a cup?", url))
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Yes, a cup."
    (row,) = rows(log)
    assert row.id == answer.headers["x-sightline-id"] and len(row.id) == 32
    assert (row.prompt, row.answer, row.history) == ("Is there a cup?", "Yes, a cup.", ())
    assert (row.yes, row.refused, row.finished, row.tokens, row.status) == (True, False, True, 5, 200)
    assert (row.prompt_stats.words, row.answer_stats and row.answer_stats.words) == (4, 3)
    (picture,) = row.images
    import base64

    assert picture.sha256 == hashlib.sha256(base64.b64decode(url.partition(",")[2])).hexdigest()
    assert (picture.width, picture.height, picture.contrast, picture.detail) == (24, 16, 0, 0)
    # Teal is (0, 128, 128): luma (ITU-R 601) 0.587 x 128 + 0.114 x 128 = 89.7, saturation 1.
    assert picture.brightness == pytest.approx(90 / 255, abs=0.003) and picture.saturation == 1
    assert not row.kept and list((log / "images").iterdir()) == []


def test_a_stream_goes_through_byte_by_byte_as_it_comes(log: Path) -> None:
    with door_before(lambda body, number: stream, log) as client:
        parts, at = [], []
        with client.stream("POST", "/v1/chat/completions", json=chat("Describe.", stream=True)) as answer:
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            for part in answer.iter_raw():
                parts.append(part)
                at.append(time.monotonic())
    assert len(parts) >= 4 and at[-1] - at[0] > 0.05  # not gathered up and sent at once
    data = b"".join(parts).decode()
    assert [line for line in data.split("\n\n") if line][-1] == "data: [DONE]"
    assert data.count("data: ") == len(PIECES) + 3
    (row,) = rows(log)
    assert (row.answer, row.finished, row.tokens) == ("".join(PIECES), True, 9)


def test_who_leaves_early_is_written_down_too(log: Path) -> None:
    with door_before(lambda body, number: stream, log) as client:
        with client.stream("POST", "/v1/chat/completions", json=chat("Describe.", stream=True)) as answer:
            next(answer.iter_raw())
        (row,) = rows(log)
    assert row.note == "the client disconnected before the end" and row.finished is None


@pytest.mark.parametrize(
    ("body", "code", "sentence"),
    [
        (b"[1, 2", 400, "not a chat completion"),
        (b"[]", 400, "not a chat completion"),
        (json.dumps({"messages": []}).encode(), 400, "not a chat completion"),
        (json.dumps({"messages": [{"role": "assistant", "content": "x"}]}).encode(), 400, "must be the user's"),
        (json.dumps(chat("x", "http://169.254.169.254/secret")).encode(), 400, "addresses are not fetched"),
        (json.dumps(chat("x", "file:///etc/passwd")).encode(), 400, "addresses are not fetched"),
        (json.dumps(chat("x", "data:image/png,rawbytes")).encode(), 400, "must be base64"),
        (json.dumps(chat("x", "data:image/png;base64,&&&&")).encode(), 400, "not base64"),
        (json.dumps(chat("x", "data:image/png;base64,aGVsbG8=")).encode(), 400, "is not an image (PNG"),
        (json.dumps(chat("x", data_url()[:-40])).encode(), 400, "not base64|truncated|no image"),
        (json.dumps(chat("x", data_url((200, 100)))).encode(), 413, "20000 pixels; the limit is 10000"),
        (b"[" * 100_000, 400, "not a chat completion"),
    ],
)
def test_what_is_refused(log: Path, body: bytes, code: int, sentence: str) -> None:
    with door_before(lambda body, number: say("never"), log, max_pixels=10_000) as client:
        answer = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == code
    message = answer.json()["error"]["message"]
    assert any(part in message for part in sentence.split("|")), message
    assert not any(log.glob("requests-*"))


def test_uploads_have_a_limit_whether_they_say_their_size_or_not() -> None:
    big = json.dumps(chat("x" * 200_000)).encode()
    headers = {"content-type": "application/json"}
    with door_before(echo, max_mb=0.1) as client:
        declared = client.post("/v1/chat/completions", content=big, headers=headers)
        chunked = client.post(
            "/v1/chat/completions", content=(big[i : i + 10_000] for i in range(0, len(big), 10_000)), headers=headers
        )
        small = client.post("/v1/chat/completions", json=chat("hello"))
    assert declared.status_code == chunked.status_code == 413
    assert "larger than 0.1 MiB" in declared.json()["error"]["message"]
    assert small.json()["choices"][0]["message"]["content"] == "to hello"


def test_routes_that_could_do_harm_are_closed_and_browsers_of_others_too() -> None:
    with door_before(echo) as client:
        for path in ("/load_model", "/reset", "/v1/completions", "/v1/responses", "/v1/load_lora_adapter", "/docs"):
            assert client.post(path, json={}).status_code == 404
        text = client.post(
            "/v1/chat/completions", content=json.dumps(chat("x")), headers={"content-type": "text/plain"}
        )
        assert text.status_code == 415
        assert client.get("/v1/models", headers={"host": "evil.example"}).status_code == 400
        assert client.get("/v1/models").json()["data"][0]["id"] == "m"


def test_redaction_keeps_measures_and_no_words(log: Path) -> None:
    for redact, prompt, answer in (("prompts", None, "I'm sorry, I can't see it."), ("texts", None, None)):
        place = log / redact
        with door_before(lambda body, number: say("I'm sorry, I can't see it."), place, redact=redact) as client:
            client.post("/v1/chat/completions", json=chat("My secret word", data_url()))
        (row,) = rows(place)
        assert (row.prompt, row.history, row.answer) == (prompt, None, answer)
        assert (row.prompt_stats.words, sum(row.prompt_stats.buckets.values()), row.refused) == (3, 3, True)
        assert "secret" not in (place / "requests-000001.jsonl").read_text()


def test_pictures_are_kept_where_that_is_asked_for(log: Path) -> None:
    seen: list[Body] = []

    def script(body: Body, number: int) -> Any:
        seen.append(body)
        return say("A cup.")

    with door_before(script, log, keep_images=True) as client:
        client.post("/v1/chat/completions", json=chat("What?", data_url(color="red"), data_url(color="blue")))
    (row,) = rows(log)
    assert row.kept and len(row.images) == 2
    assert [picture.getpixel((0, 0)) for picture in pictures_of(seen[0])] == [(255, 0, 0), (0, 0, 255)]
    for picture in row.images:
        assert hashlib.sha256(picture_file(log, picture.sha256).read_bytes()).hexdigest() == picture.sha256


def test_a_new_file_begins_when_one_is_full(log: Path) -> None:
    with door_before(echo, log, file_mb=1 / 1024) as client:
        for number in range(6):
            client.post("/v1/chat/completions", json=chat(f"prompt {number}"))
        found = rows(log, 6)
    assert [row.prompt for row in found] == [f"prompt {number}" for number in range(6)]
    files = sorted(path.name for path in log.glob("requests-*.jsonl"))
    assert len(files) > 1 and files[0] == "requests-000001.jsonl"
    half = list(read_log(log))[2][1]
    assert [row.prompt for row, _ in read_log(log, half)] == ["prompt 3", "prompt 4", "prompt 5"]


def test_errors_of_the_server_come_through_and_its_end_is_said(log: Path) -> None:
    fault: list[str | None] = [None]

    def script(body: Body, number: int) -> Any:
        return status(500, {"error": {"message": "out of memory"}}) if number == 0 else cut_off_connection(40)

    with door_before(script, log, failure_text=lambda: fault[0]) as client:
        first = client.post("/v1/chat/completions", json=chat("one"))
        second = client.post("/v1/chat/completions", json=chat("two"))
        found = rows(log, 2)
        fault[0] = "the model server ended with signal 9 (SIGKILL)"
        third = client.post("/v1/chat/completions", json=chat("three"))
        health = client.get("/health")
    assert first.status_code == 500 and first.json() == {"error": {"message": "out of memory"}}
    assert (found[0].status, found[0].note, found[0].answer) == (500, "out of memory", None)
    assert (second.status_code, found[1].status) == (502, 502)
    assert "does not respond" in second.json()["error"]["message"] and "does not respond" in found[1].note
    assert third.status_code == health.status_code == 503
    assert "SIGKILL" in third.json()["error"]["message"]


def test_feedback_lies_beside_the_log(log: Path) -> None:
    with door_before(echo, log) as client:
        call = client.post("/v1/chat/completions", json=chat("x")).headers["x-sightline-id"]
        assert (
            client.post("/feedback", json={"id": call, "thumb": "down", "correction": "A <b>cow</b>."}).status_code
            == 200
        )
        for body, code in (
            ({"id": call}, 422),
            ({"id": "../../etc", "thumb": "up"}, 422),
            ({"id": call, "thumb": "sideways"}, 422),
            ({"id": call, "correction": "  "}, 422),
            ({"id": call, "thumb": "up", "more": 1}, 422),
            ([], 422),
        ):
            assert client.post("/feedback", json=body).status_code == code, body
    ((_, row),) = read_feedback(log)
    assert (row.id, row.thumb, row.correction) == (call, "down", "A <b>cow</b>.")
    assert lines(log / "feedback.jsonl")[0]["time"].startswith("20")
    with door_before(echo) as client:
        answer = client.post("/feedback", json={"id": call, "thumb": "up"})
    assert answer.status_code == 404 and "keeps no log" in answer.json()["error"]["message"]
