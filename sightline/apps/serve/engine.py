"""The model server behind the proxy: vLLM if installed, else `transformers serve`, as a subprocess; its chat template.

It listens on a loopback port that only `proxy` knows. It is never restarted: if it ends, its exit code and last lines
are reported. A chat template with two roles, `user` and all others, renders a system turn as an answer; for such models
`request_parser` moves the text of system turns into the first user turn.
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
from typing import Any, Literal

from sightline.apps.serve.config import ServeConfig
from sightline.config.problems import brief
from sightline.errors import InputError
from sightline.records.store import read_json

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


#: vLLM's option for another template.
_OPTION = "--chat-template"
_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_QUESTION, _OTHER = "What is it?", "Look closely."


def renders_system_as_answer(template: str) -> bool:
    """Whether a chat template renders a system turn as it renders an answer; False if it cannot be rendered."""
    from transformers.utils import chat_template_utils

    render: Any = chat_template_utils.render_jinja_template  # its annotation is not what it returns

    def rendered(role: str, content: Callable[[str], Any]) -> str:
        turns = [{"role": role, "content": content(_OTHER)}, {"role": "user", "content": content(_QUESTION)}]
        texts, _ = render([turns], chat_template=template, add_generation_prompt=True)
        return str(texts[0])

    def is_same(content: Callable[[str], Any]) -> bool:
        try:
            text = rendered("system", content)
            return _OTHER in text and text == rendered("assistant", content)
        except Exception:  # noqa: BLE001 - untrusted code in a sandbox; the model server reports its errors with each call
            return False

    return is_same(lambda text: [{"type": "text", "text": text}]) or is_same(lambda text: text)


def find_template(source: str, more: Sequence[str] = ()) -> str | None:
    """The chat template of a model directory or of a hub model in the local cache; None if there is none.

    `more` are the model server's extra arguments, which may name another template.

    Raises:
        InputError: a file with the template is not JSON, or the named template is not readable.
    """
    given = _given_template(more)
    if given is not None:
        return given
    for name in _FILES:
        path = _local_file(source, name)
        if path is None:
            continue
        if path.suffix == ".jinja":
            return path.read_text(encoding="utf-8")
        content = read_json(path)
        found = content.get("chat_template") if isinstance(content, dict) else None
        if isinstance(found, list):  # several templates by name
            found = next((one.get("template") for one in found if one.get("name") == "default"), None)
        if isinstance(found, str):
            return found
    return None


def _given_template(more: Sequence[str]) -> str | None:
    """The template that `--chat-template` names in the arguments: a file or the text itself."""
    found = None
    for place, word in enumerate(more):
        if word.startswith(f"{_OPTION}="):
            found = word.removeprefix(f"{_OPTION}=")
        elif word == _OPTION and place + 1 < len(more):
            found = more[place + 1]
    if found is None or "{" in found:
        return found
    try:
        return Path(found).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{_OPTION} {found} cannot be read ({brief(error)}); name a text file") from error


def _local_file(source: str, name: str) -> Path | None:
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source, name)
    return Path(found) if isinstance(found, str) else None
