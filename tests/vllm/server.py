"""A real vLLM on loopback, from the environment of `make setup-vllm`; it is always killed at the end."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from sightline.apps.serve.engine import free_port
from sightline.apps.serve.run import is_healthy
from tests.test_readme import ROOT

#: The environment of tests/vllm/setup.sh; its last act is to write the mark.
HOME = Path(os.environ.get("SIGHTLINE_VLLM", ROOT / ".venv-vllm"))
READY = HOME / ".ready"
#: What a small machine needs: no compilation, short sequences, few at a time.
SMALL = ("--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "8")
ADAPTERS = ("--enable-lora", "--max-lora-rank", "16")
WAIT = 1200.0  # seconds; the start takes one minute on an idle machine of two cores, several on a busy one


@dataclass(frozen=True)
class RunningServer:
    """A server: the address of its API, with `/v1`, and its output so far."""

    url: str
    log: Path

    def models(self) -> list[str]:
        """The names at `/v1/models`."""
        answer = httpx2.get(f"{self.url}/models", timeout=60, trust_env=False)
        return [one["id"] for one in answer.raise_for_status().json()["data"]]

    def statuses(self, route: str) -> list[int]:
        """The status of every call to a route so far, from the access log."""
        found = re.findall(rf'"POST /v1/{route} HTTP/1\.1" (\d+)', self.log.read_text(errors="replace"))
        return [int(status) for status in found]


def environment() -> dict[str, str]:
    """Environment variables of a vLLM on this machine: its programs, a small cache, adapters, nothing sent anywhere."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    return own | {
        "PATH": f"{HOME / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_NO_USAGE_STATS": "1",
    }


def ends_with_parent() -> list[str]:
    """The words before a command that let it end where this process is killed; none where there is no `setpriv`."""
    program = shutil.which("setpriv")
    return [] if program is None else [program, "--pdeathsig", "TERM"]


@contextlib.contextmanager
def running_vllm(model: Path, name: str, log: Path, more: Sequence[str] = ()) -> Iterator[RunningServer]:
    """`vllm serve` on a checkpoint, in float32, once it lists `name` and reports that it is healthy."""
    port = free_port()
    command = [str(HOME / "bin/vllm"), "serve", str(model), "--served-model-name", name, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--dtype", "float32", *SMALL, *more]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*ends_with_parent(), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(),
            start_new_session=True,
        )
    try:
        server = RunningServer(f"{url}/v1", log)
        deadline = time.monotonic() + WAIT
        while not is_healthy(url):
            assert process.poll() is None, f"vLLM has ended:\n{log.read_text(errors='replace')[-4000:]}"
            assert time.monotonic() < deadline, f"vLLM is not ready:\n{log.read_text(errors='replace')[-4000:]}"
            time.sleep(0.5)
        assert server.models() == [name]
        yield server
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the server and its workers: by a signal, then by force, whatever is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
