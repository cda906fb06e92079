"""The client against a server that misbehaves in every way, against none at all, and killed in the middle."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest
from pydantic import ValidationError

from sightline.endpoint import Ask, EndpointConfig, client
from sightline.errors import InputError
from tests.judges.local_server import (
    Act,
    Body,
    answer,
    cut_off_connection,
    dribble,
    echo,
    endpoint,
    hang,
    in_turn,
    say,
    serving,
    status,
    text_of,
)

pytest.importorskip("openai")
MakeImage = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("own_cache")


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port


# --- a server that misbehaves, and then no more -----------------------------------------------------------------------

FLEETING: dict[str, Act] = {
    "500": status(500, {"error": {"message": "out of memory"}}),
    "503": status(503, {"error": {"message": "loading"}}),
    "429": status(429, {"error": {"message": "slow down"}}),
    "408": status(408, {}),
    "cut before": cut_off_connection(0),
    "cut within": cut_off_connection(40),
    "not JSON": answer(200, b"<html>Bad gateway</html>", "text/html"),
    "half JSON": answer(200, b'{"choices": [{"message"'),
    "other JSON": answer(200, b'{"result": "Score: 9"}'),
    "no choices": answer(200, b'{"choices": []}'),
    "no body": answer(200, b""),
    "content is no text": answer(200, b'{"choices": [{"message": {"content": {"a": 1}}}]}'),
    "bytes": answer(200, b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("name", FLEETING)
def test_what_passes_is_tried_again(name: str, own_cache: Path) -> None:
    with serving(in_turn(FLEETING[name], FLEETING[name], say("at last"))) as (url, heard):
        (reply,) = endpoint(url, retries=2).ask([Ask("a")])
    assert reply.text == "at last" and len(heard.bodies) == 3
    assert len(list(own_cache.rglob("*.json"))) == 1


@pytest.mark.parametrize("name", FLEETING)
def test_what_does_not_pass_fails_the_one_call_and_is_not_kept(name: str, own_cache: Path) -> None:
    def script(body: Body, number: int) -> Act:
        return FLEETING[name] if text_of(body) == "bad" else say("fine")

    with serving(script) as (url, heard):
        server = endpoint(url, retries=1)
        replies = server.ask([Ask("good"), Ask("bad"), Ask("better")])
        assert [reply.text for reply in replies] == ["fine", None, "fine"] and replies[1].note
        assert heard.texts().count("bad") == 2 and len(list(own_cache.rglob("*.json"))) == 2
        server.ask([Ask("bad")])
        assert heard.texts().count("bad") == 4


@pytest.mark.parametrize("act", [hang, dribble])
def test_a_slow_server_is_left_in_time(act: Act) -> None:
    with serving(in_turn(act, say("at last"))) as (url, _):
        begun = time.monotonic()
        (reply,) = endpoint(url, timeout=0.4, retries=1).ask([Ask("a")])
        assert reply.text == "at last" and time.monotonic() - begun < 3
    with serving(in_turn(act)) as (url, _):
        (reply,) = endpoint(url, timeout=0.4, retries=0).ask([Ask("b")])
    assert reply.text is None and reply.note == "no answer within 0.4 s"


def test_retry_after_is_honored_by_all_threads() -> None:
    heard_at: list[float] = []

    def script(body: Body, number: int) -> Act:
        heard_at.append(time.monotonic())
        if number == 0:
            return status(429, {}, {"Retry-After": "1"})
        if number == 1:
            time.sleep(0.4)  # long enough for the other thread to be told
        return say("ok")

    with serving(script) as (url, _):
        replies = endpoint(url, concurrency=2, retries=1).ask([Ask(str(number)) for number in range(4)])
    assert [reply.text for reply in replies] == ["ok"] * 4
    assert 0.95 < heard_at[2] - heard_at[0] < 4


def test_retry_after_may_be_a_date() -> None:
    late = status(503, {}, {"Retry-After": formatdate(time.time() + 2, usegmt=True)})
    with serving(in_turn(late, say("ok"))) as (url, _):
        begun = time.monotonic()
        assert endpoint(url, retries=1).ask([Ask("a")])[0].text == "ok"
    assert time.monotonic() - begun > 0.9  # dates have whole seconds


@pytest.mark.parametrize("header", ["soon", "-1", "nan", "1e9", ""])
def test_a_retry_after_of_no_sense_is_ignored(header: str) -> None:
    with serving(in_turn(status(429, {}, {"Retry-After": header}), say("ok"))) as (url, _):
        assert endpoint(url, retries=1).ask([Ask("a")])[0].text == "ok"


def test_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    heard_at: list[float] = []

    def script(body: Body, number: int) -> Act:
        heard_at.append(time.monotonic())
        return FLEETING["500"]

    with serving(script) as (url, _):
        endpoint(url, retries=2).ask([Ask("a")])
    first, second = heard_at[1] - heard_at[0], heard_at[2] - heard_at[1]
    assert first >= 0.2 and second >= 0.4 and second < 2


@pytest.mark.parametrize(
    ("act", "note"),
    [
        (say(""), "empty reply (stop)"),
        (say("  \n"), "empty reply (stop)"),
        (say(None, refusal="I cannot help"), "empty reply (I cannot help)"),
        (say("", finish="content_filter"), "empty reply (content_filter)"),
    ],
)
def test_an_empty_reply_fails_at_once_and_is_not_kept(act: Act, note: str) -> None:
    with serving(in_turn(act)) as (url, heard):
        server = endpoint(url)
        assert [server.ask([Ask("a")])[0].note for _ in range(2)] == [note, note]
    assert len(heard.bodies) == 2


def test_what_the_token_limit_cut_off_is_no_reply_and_costs_once() -> None:
    with serving(in_turn(say("Score: 1", finish="length", tokens=5))) as (url, heard):
        replies = [endpoint(url).ask([Ask("a")])[0] for _ in range(2)]
    assert [(reply.text, reply.tokens, reply.note) for reply in replies] == [(None, 5, "cut off at max_tokens")] * 2
    assert len(heard.bodies) == 1


# --- what concerns the server stops the run ---------------------------------------------------------------------------


def test_nobody_there_stops_at_once() -> None:
    port = free_port()
    with pytest.raises(InputError, match=rf"no server answers at http://127.0.0.1:{port}/v1 .*start it, or correct"):
        endpoint(f"http://127.0.0.1:{port}/v1", retries=9).ask([Ask("a")])


@pytest.mark.parametrize(
    ("code", "message"),
    [(401, r"rejects the API key .*valid one in MY_KEY"), (404, "does not know 'm'")],
)
def test_a_wrong_key_or_model_stops_at_once(code: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    act = status(code, {"error": {"message": "no: sk-secret"}})
    with serving(in_turn(act)) as (url, heard), pytest.raises(InputError, match=message) as caught:
        endpoint(url, api_key_env="MY_KEY", concurrency=1).ask([Ask("a"), Ask("b")])
    assert len(heard.bodies) == 1 and "sk-secret" not in str(caught.value) and "no: ***" in str(caught.value)


def test_a_wrong_address_stops_at_once() -> None:
    with serving(echo) as (url, _), pytest.raises(InputError, match=r"no route /chat/completions.*base_url"):
        endpoint(url.removesuffix("/v1")).ask([Ask("a")])


def test_a_server_that_refuses_everything_stops_the_run() -> None:
    act = status(400, {"error": {"message": "max_tokens is not supported"}})
    with serving(in_turn(act)) as (url, heard):
        server = endpoint(url, concurrency=1)
        replies = server.ask([Ask(str(number)) for number in range(7)])
        assert {reply.text for reply in replies} == {None} and "max_tokens is not supported" in replies[0].note
        with pytest.raises(InputError, match=r"failed 8 calls and answered none .*max_tokens is not supported"):
            server.ask([Ask(str(number)) for number in range(100)])
    assert len(heard.bodies) == 8  # and a refusal was never repeated


def test_a_server_that_breaks_at_everything_stops_the_run() -> None:
    message = r"failed 8 calls and answered none .*out of memory"
    with serving(in_turn(FLEETING["500"])) as (url, heard), pytest.raises(InputError, match=message):
        endpoint(url, concurrency=1, retries=1).ask([Ask(str(number)) for number in range(100)])
    assert len(heard.bodies) == 16


def test_rows_that_are_always_refused_do_not_stop_a_later_run() -> None:
    """Only they are asked again, and all of them fail; the server is known to answer."""

    def script(body: Body, number: int) -> Act:
        return say("ok") if text_of(body) == "good" else status(404, {"error": {"message": "too long"}})

    asks = [Ask("good"), *(Ask(str(number)) for number in range(12))]
    with serving(script) as (url, heard):
        first = endpoint(url, concurrency=1).ask(asks)
        assert endpoint(url, concurrency=1).ask(asks) == first
    assert len(heard.bodies) == 1 + 12 + 12


def test_a_model_that_says_nothing_is_no_broken_server() -> None:
    with serving(in_turn(say(""))) as (url, heard):
        replies = endpoint(url).ask([Ask(str(number)) for number in range(20)])
    assert {reply.text for reply in replies} == {None} and len(heard.bodies) == 20


@pytest.mark.parametrize("code", [400, 403, 404, 413, 422])
def test_once_it_has_answered_a_refusal_is_the_calls_own(code: int) -> None:
    with serving(in_turn(say("ok"), status(code, {"error": {"message": "too long"}}))) as (url, heard):
        replies = endpoint(url, concurrency=1).ask([Ask(str(number)) for number in range(12)])
    assert [reply.text for reply in replies] == ["ok"] + [None] * 11 and len(heard.bodies) == 12
    assert f"status {code}" in replies[1].note and "too long" in replies[1].note


def test_a_server_that_went_away_stops_the_run_and_what_was_answered_is_kept() -> None:
    with serving(echo) as (url, _):
        server = endpoint(url, retries=1)
        server.ask([Ask("a")])
    with pytest.raises(InputError, match=r"is gone .*start it and run the same command again later; answers so far"):
        server.ask([Ask("a"), Ask("b")])
    with serving(echo, port=int(url.split(":")[2].split("/")[0])) as (_, heard):
        assert [reply.text for reply in server.ask([Ask("a"), Ask("b")])] == ["to a", "to b"]
    assert heard.texts() == ["b"]


def test_a_pause_of_an_hour_stops_the_run() -> None:
    act = status(429, {"error": {"message": "quota"}}, {"Retry-After": "3600"})
    with serving(in_turn(say("ok"), act)) as (url, _), pytest.raises(InputError, match=r"a pause of 3600 s .*quota"):
        endpoint(url, concurrency=1).ask([Ask("a"), Ask("b")])


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'sightline\[judge\]'"):
        endpoint("http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://host/v1", "http:///v1", "https://me:secret@host/v1", "https://me@host/v1"]
)
def test_an_address_of_no_use_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        EndpointConfig(base_url=url, model="m")


# --- kills ------------------------------------------------------------------------------------------------------------

CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from sightline.endpoint import Ask, Endpoint, EndpointConfig
config = EndpointConfig(base_url=sys.argv[1], model="m", timeout=60, concurrency=2)
Endpoint(config).ask([Ask(str(number)) for number in range(10)])
"""


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_ends_at_once_and_goes_on_where_it_was(kill: signal.Signals) -> None:
    stuck = threading.Semaphore(0)

    def script(body: Body, number: int) -> Act:
        if number < 5:
            return say(f"to {text_of(body)}")
        stuck.release()
        return hang

    with serving(script) as (url, heard):
        with subprocess.Popen([sys.executable, "-c", CHILD, url], stderr=subprocess.PIPE, env=os.environ) as child:
            assert stuck.acquire(timeout=60) and stuck.acquire(timeout=60)
            sent = time.monotonic()
            child.send_signal(kill)
            assert child.stderr is not None
            stderr = child.stderr.read().decode()
            child.wait(20)
        assert time.monotonic() - sent < 10
        assert kill == signal.SIGKILL or stderr.rstrip().endswith("KeyboardInterrupt")
        answered = heard.texts()[:5]
    with serving(echo) as (url, heard):
        replies = endpoint(url).ask([Ask(str(number)) for number in range(10)])
    assert [reply.text for reply in replies] == [f"to {number}" for number in range(10)]
    assert sorted(heard.texts()) == sorted({str(number) for number in range(10)} - set(answered))
