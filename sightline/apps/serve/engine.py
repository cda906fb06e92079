"""The server that really answers: vLLM where it is installed, else `transformers serve`, as a process of its own.

It listens on loopback alone, at a port that nobody is told; `proxy` is the way in. It is never started twice: one that
dies is reported with its exit code and its last lines, and what to do about it is for people.
"""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from sightline.apps.serve.config import ServeConfig
from sightline.errors import InputError

Kind = Literal["auto", "vllm", "transformers"]
LAST_LINES = 20


class ServerEnded(Exception):
    """The model's server ended by itself: `code` is its exit code, `lines` are the last that it wrote."""

    def __init__(self, code: int, lines: Sequence[str]) -> None:
        super().__init__(f"the model's server ended with {code_text(code)}")
        self.code, self.lines = code, tuple(lines)


def code_text(code: int) -> str:
    """`exit code 1`, or for a negative one the signal: `signal 9 (SIGKILL)`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


def resolved(kind: Kind) -> Literal["vllm", "transformers"]:
    """Which server `kind` means here: vLLM where it is installed."""
    if kind == "auto":
        return "vllm" if importlib.util.find_spec("vllm") is not None else "transformers"
    return kind


def command_of(
    kind: Kind, model: str, port: int, config: ServeConfig, more: Sequence[str] = (), *, name: str | None = None
) -> list[str]:
    """The command line of the server; `more` are arguments of its own, `name` is what vLLM calls the model.

    Raises:
        InputError: what is asked for is not installed.
    """
    if resolved(kind) == "vllm":
        program = _program("vllm")
        if program is None:
            raise InputError("vLLM is not installed; install it (pip install vllm), or leave --engine out")
        place = ["--host", "127.0.0.1", "--port", str(port)]
        return [program, "serve", model, "--served-model-name", name or model, *place, "--dtype", config.dtype, *more]
    program = _program("transformers")
    if program is None or any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn", "openai")):
        raise InputError("serving needs packages that are not installed; pip install 'sightline[serve]'")
    place = ["--host", "127.0.0.1", "--port", str(port)]
    return [program, "serve", model, *place, "--device", config.device, "--dtype", config.dtype, *more]


def free_port() -> int:
    """A port of loopback that is free now."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


class ServerProcess:
    """A running server. `url` is where it listens; what it writes is kept, its last lines alone.

    `umask` is for the files that it makes, such as a cache that it shares with others; -1 is this process's.
    """

    def __init__(self, command: Sequence[str], port: int, *, umask: int = -1) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        # A session of its own: Ctrl-C is for the door, which then ends the server in order.
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            umask=umask,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def ended(self) -> ServerEnded | None:
        """How it ended, None while it runs."""
        code = self.code()
        if code is None:
            return None
        self._reader.join(timeout=2)  # its last lines may still be in the pipe
        return ServerEnded(code, list(self._lines))

    def wait_ready(self, healthy: Callable[[str], bool], seconds: float) -> None:
        """Return when `healthy(url)` says so.

        Raises:
            ServerEnded: the server ended before.
            InputError: it was not ready in so many seconds.
        """
        deadline = time.monotonic() + seconds
        while not healthy(self.url):
            if (ended := self.ended()) is not None:
                raise ended
            if time.monotonic() > deadline:
                raise InputError(f"the model was not ready within {seconds:g} s; give it more with --set wait=SECONDS")
            time.sleep(0.1)

    def stop(self, patience: float = 10) -> None:
        """End it with all that it started, by force where it takes longer than `patience` seconds."""
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, sent)
                self._process.wait(patience)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()
        self._reader.join(timeout=2)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.decode("utf-8", errors="replace").rstrip()[:500])


def _program(name: str) -> str | None:
    """A console script of this environment, or else of the path."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)
