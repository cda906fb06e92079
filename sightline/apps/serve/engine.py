"""The model server behind the proxy: vLLM if installed, else `transformers serve`, as a subprocess.

It listens on a loopback port that only `proxy` knows. It is never restarted: if it ends, its exit code and last lines
are reported.
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
    """The model server ended on its own: exit code `code`, last lines of output `lines`."""

    def __init__(self, code: int, lines: Sequence[str]) -> None:
        super().__init__(f"the model server ended with {code_text(code)}")
        self.code, self.lines = code, tuple(lines)


def code_text(code: int) -> str:
    """`exit code 1`, or for a negative one the signal: `signal 9 (SIGKILL)`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


def resolve_engine(kind: Kind) -> Literal["vllm", "transformers"]:
    """The server that `kind` selects; for auto, vLLM if it is installed."""
    if kind == "auto":
        return "vllm" if importlib.util.find_spec("vllm") is not None else "transformers"
    return kind


def server_command(
    kind: Kind, model: str, port: int, config: ServeConfig, more: Sequence[str] = (), *, name: str | None = None
) -> list[str]:
    """The command line of the server; `more` are extra arguments, `name` is vLLM's served model name.

    Raises:
        InputError: the requested server is not installed.
    """
    if resolve_engine(kind) == "vllm":
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
    """A free loopback port."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


class ServerProcess:
    """A running server at `url`; the last lines of its output are kept.

    `umask` applies to files the server creates, such as a shared cache; -1 keeps this process's.
    """

    def __init__(self, command: Sequence[str], port: int, *, umask: int = -1) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        # A separate session: Ctrl-C goes to the proxy, which then stops the server.
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
        """The process id."""
        return self._process.pid

    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def ended(self) -> ServerEnded | None:
        """The error to raise after it ended; None while it runs."""
        code = self.code()
        if code is None:
            return None
        self._reader.join(timeout=2)  # its last lines may still be in the pipe
        return ServerEnded(code, list(self._lines))

    def wait_ready(self, healthy: Callable[[str], bool], seconds: float) -> None:
        """Wait until `healthy(url)` is true.

        Raises:
            ServerEnded: the server ended before that.
            InputError: it was not ready after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not healthy(self.url):
            if (ended := self.ended()) is not None:
                raise ended
            if time.monotonic() > deadline:
                raise InputError(
                    f"the model was not ready within {seconds:g} s; increase the limit with --set wait=SECONDS"
                )
            time.sleep(0.1)

    def stop(self, patience: float = 10) -> None:
        """Stop the server and its subprocesses, by force after `patience` seconds."""
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
    """Path of a console script: of this environment, else on PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)
