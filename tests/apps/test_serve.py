"""Starting, watching and ending the server behind the door; slow: the whole command with the lab's model."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner

from sightline.apps.serve.config import ServeConfig
from sightline.apps.serve.engine import LAST_LINES, ServerEnded, ServerProcess, code_text, free_port, server_command
from sightline.cli import app
from sightline.cli.deploy import split_engine_args
from sightline.data.request_log import read_log
from sightline.errors import InputError
from sightline.lab import BASE
from sightline.records.ratings import LoggedRequest
from tests.apps.conftest import chat, data_url


def program(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_server_that_dies_is_reported_with_its_code_and_its_last_lines() -> None:
    dying = "import sys\nfor i in range(50): print('line', i)\nsys.stderr.write('no memory left')\nsys.exit(3)"
    engine = ServerProcess(program(dying), free_port())
    with pytest.raises(ServerEnded, match="ended with exit code 3") as caught:
        engine.wait_ready(lambda url: False, 30)
    assert caught.value.lines[-1] == "no memory left" and caught.value.lines[-2] == "line 49"
    assert len(caught.value.lines) == LAST_LINES
    engine.stop()


def test_a_killed_server_is_reported_by_its_signal_and_ending_takes_its_children_along() -> None:
    sleeper = "import time; time.sleep(60)"
    parent = (
        "import subprocess, sys, time\n"
        f"print(subprocess.Popen([sys.executable, '-c', {sleeper!r}]).pid, flush=True)\ntime.sleep(60)"
    )
    engine = ServerProcess(program(parent), free_port())
    deadline = time.monotonic() + 20
    while not engine._lines and time.monotonic() < deadline:
        time.sleep(0.01)
    child = int(engine._lines[0])
    os.kill(engine.pid, signal.SIGKILL)
    while engine.code() is None:
        time.sleep(0.01)
    assert code_text(engine.code() or 0) == "signal 9 (SIGKILL)"
    engine.stop()
    assert _gone(child)


def _gone(pid: int) -> bool:
    """Whether a process is no more, or waits for nobody as a zombie."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_a_server_that_is_never_ready_is_given_up() -> None:
    engine = ServerProcess(program("import time; time.sleep(60)"), free_port())
    try:
        with pytest.raises(InputError, match=r"not ready within 0.3 s; increase the limit with --set wait=SECONDS"):
            engine.wait_ready(lambda url: False, 0.3)
        assert engine.ended() is None
    finally:
        engine.stop()
    assert engine.code() == -signal.SIGTERM


def test_the_command_listens_on_loopback_alone() -> None:
    words = server_command("transformers", "MODEL", 1234, ServeConfig(device="cpu"))
    assert Path(words[0]).name == "transformers" and words[1:3] == ["serve", "MODEL"]
    assert words[words.index("--host") + 1] == "127.0.0.1" and words[words.index("--port") + 1] == "1234"
    more = split_engine_args("--seed 3 --name 'two words'")
    assert server_command("transformers", "MODEL", 1234, ServeConfig(), more)[-4:] == [*more]
    assert more == ("--seed", "3", "--name", "two words")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nowhere",), "model nowhere does not exist"),
        (("{empty}",), "has no config.json"),
        (("x/y", "--engine", "sglang"), "choose auto, vllm or transformers"),
        (("{base}", "--set", "max_md=1"), "did you mean 'max_mb'?"),
        (("{base}", "--host", "203.0.113.7"), "cannot be bound"),
        (("{base}", "--api-key", "NO_SUCH_VARIABLE"), "neither a set environment variable nor a readable file"),
        (("{base}", "--served-model-name", " "), "--served-model-name ' ' is not a valid name"),
        (("{base}", "--engine-args", "--seed '1"), "cannot be split into arguments (No closing quotation)"),
        (
            ("{base}", "--engine-args", "--host=0.0.0.0"),
            "--host=0.0.0.0: the engine listens on loopback",
        ),
        (("{base}", "--engine-args", "--dtype float16"), "use --set dtype=..."),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    options = [word.format(empty=tmp_path, base=BASE) for word in words]
    result = CliRunner().invoke(app, ["serve", *options])
    assert result.exit_code == 2 and sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["serve", str(BASE), "--port", port])
    assert result.exit_code == 2 and "cannot be bound (Address already in use)" in result.stderr


@pytest.fixture
def serving_lab(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The command with the lab's model, and where it says that it is."""
    command = [sys.executable, "-m", "sightline", "serve", str(BASE), "--port", "0", "--set", "device=cpu"]
    command += ["--log", str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving "), process.communicate()
        try:
            yield process, line.split(" at ")[-1].strip()
        finally:
            process.terminate()
            process.wait(30)


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()]


@pytest.mark.slow
def test_the_lab_is_served_and_its_death_reported(
    serving_lab: tuple["subprocess.Popen[str]", str], tmp_path: Path
) -> None:
    process, url = serving_lab
    assert url.startswith("http://127.0.0.1:") and url.endswith("/v1")
    with httpx2.Client(timeout=60, trust_env=False, verify=False) as client:
        name = client.get(f"{url}/models").json()["data"][0]["id"]
        assert name == "base"
        assert client.get(f"{url.removesuffix('/v1')}/health").json() == {"status": "ok"}
        body = chat("Describe the picture.", data_url((96, 96)), max_tokens=12) | {"model": name}
        answer = client.post(f"{url}/chat/completions", json=body)
    text = answer.json()["choices"][0]["message"]["content"]
    assert answer.json()["model"] == "base" and str(BASE) not in answer.text
    folder = tmp_path / "log"
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.rglob("*"))} == {0}
    ((row, _),) = read_log(tmp_path / "log")
    assert row.answer == text and row.id == answer.headers["x-sightline-id"] and row.tokens == 12
    (server,) = _children(process.pid)
    os.kill(server, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.startswith("error: the model server ended with signal 9 (SIGKILL); it is not restarted")
    assert "Uvicorn running on http://127.0.0.1:" in err and "Traceback" not in err


@pytest.mark.slow
def test_the_lab_reads_a_system_turn_with_the_first_question(
    serving_lab: tuple["subprocess.Popen[str]", str], tmp_path: Path
) -> None:
    """Not as an answer, as its template by itself would render it; the log keeps what was sent."""
    _, url = serving_lab
    body = chat("Describe the picture.", data_url((96, 96)), max_tokens=12, temperature=0.0) | {"model": "base"}
    system = {"role": "system", "content": "Answer in few words."}
    question = {**body, "messages": [system, *body["messages"]]}
    merged = chat("Answer in few words.\nDescribe the picture.", data_url((96, 96))) | {"model": "base"}
    with httpx2.Client(timeout=60, trust_env=False, verify=False) as client:
        first, second = (
            client.post(f"{url}/chat/completions", json=one).json()
            for one in (question, {**body, "messages": merged["messages"]})
        )
    assert first["usage"]["prompt_tokens"] == second["usage"]["prompt_tokens"] > 0
    assert first["choices"][0]["message"] == second["choices"][0]["message"]
    row = next(rows_of(tmp_path / "log"))
    assert [(turn.role, turn.text) for turn in row.history or ()] == [("system", "Answer in few words.")]
    assert row.prompt == "Describe the picture."


@pytest.mark.slow
def test_it_stops_in_order(serving_lab: tuple["subprocess.Popen[str]", str]) -> None:
    process, _ = serving_lab
    (server,) = _children(process.pid)
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "stopped\n", "") and _gone(server)


def _no_large_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))


@pytest.fixture
def limited_lab(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", httpx2.Client]]:
    """The command with a key, a name and a log that is full after 1,500 bytes; and a client that knows the key."""
    (tmp_path / "key").write_text("s3cret")
    command = [sys.executable, "-m", "sightline", "serve", str(BASE), "--port", "0", "--log", str(tmp_path / "log")]
    command += ["--api-key", str(tmp_path / "key"), "--served-model-name", "a model"]
    command += ["--set", "device=cpu", "--set", "max_tokens=100000"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=_no_large_files, **pipes) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving a model at "), process.communicate()
        url, headers = line.split(" at ")[-1].strip().removesuffix("/v1"), {"authorization": "Bearer s3cret"}
        with httpx2.Client(base_url=url, headers=headers, timeout=120, trust_env=False, verify=False) as client:
            yield process, client
        process.kill()


def _leave(client: httpx2.Client, body: dict[str, Any]) -> None:
    """Ask, and leave after a second."""
    began = time.monotonic()
    with (
        contextlib.suppress(httpx2.ReadTimeout),
        client.stream("POST", "/v1/chat/completions", json=body, timeout=1) as answer,
    ):
        for _ in answer.iter_raw():
            if time.monotonic() > began + 1:
                break


@pytest.mark.slow
def test_who_leaves_frees_the_model_and_a_full_log_breaks_no_answer(
    limited_lab: tuple["subprocess.Popen[str]", httpx2.Client], tmp_path: Path
) -> None:
    """Answers of 100,000 tokens are left after a second: the next call does not wait for their end."""
    process, client = limited_lab
    ends, took = AutoTokenizer.from_pretrained(BASE).eos_token_id, []
    short = chat("x", max_tokens=2) | {"model": "a model"}
    assert client.post("/v1/chat/completions", json=short, headers={"authorization": ""}).status_code == 401
    for is_stream in (True, False):
        _leave(client, short | {"max_tokens": 100_000, "logit_bias": {str(ends): -100}, "stream": is_stream})
        began = time.monotonic()
        answer = client.post("/v1/chat/completions", json=short)
        took.append(time.monotonic() - began)
        assert answer.json()["usage"]["completion_tokens"] == 2
    assert max(took) < 20, took
    assert [client.post("/v1/chat/completions", json=short).status_code for _ in range(4)] == [200] * 4
    health = client.get("/health").json()
    assert health["status"] == "ok" and health["log"]["lost"] > 0 and health["log"]["reason"] == "File too large"
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert err.count("warning: the log cannot be written (File too large)") == 1 and "Traceback" not in err
    kept = list(rows_of(tmp_path / "log"))
    assert kept[0].status == 200 and kept[0].note == "the client disconnected before the end"
    assert {row.model for row in kept} == {"a model"}


def rows_of(log: Path) -> Iterator[LoggedRequest]:
    return (row for row, _ in read_log(log))


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_reported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    result = CliRunner().invoke(app, ["serve", str(tmp_path), "--port", "0"])
    assert result.exit_code == 1 and "the model server ended with exit code 1" in result.stderr
    assert "processing classes" in result.stderr  # what its own last line says
