"""Commands in several processes, as a launcher starts them."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import sightline


def start(count: int, command: Sequence[str], **environ: str) -> "list[subprocess.Popen[str]]":
    """Start a Python module in `count` processes as `torchrun` would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    started = []
    for rank in range(count):
        env = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), **environ}
        arguments = [sys.executable, "-m", *command]
        started.append(subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE, text=True))
    return started


def launched(count: int, command: Sequence[str], timeout: float = 900, **environ: str) -> list[str]:
    """Run a Python module in `count` processes; returns what each wrote to stderr."""
    started = start(count, command, **environ)
    try:
        outputs = [process.communicate(timeout=timeout)[1] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [process.returncode for process in started] == [0] * count, "\n".join(outputs)
    return outputs


def accelerate(count: int) -> list[str]:
    """`accelerate launch` of Sightline in so many processes, with the config that ships with it."""
    config = Path(sightline.__file__).parent / "train" / "launch" / "ddp.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return [*launch, "--num_processes", str(count), "-m", "sightline"]
