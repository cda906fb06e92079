"""A command that serves a page, as a process of its own: started, asked where it is, killed."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WAIT = 240.0  # seconds; a shared machine may stall


@dataclass
class Served:
    """A server: `lines` is what it said so far, `address` where its page is."""

    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)

    @property
    def address(self) -> str:
        """Of the page."""
        assert self.ready.wait(WAIT), f"no address came: {self.lines}"
        found = [word for line in self.lines for word in line.split() if word.startswith("http://")]
        assert found, f"the server has ended: {self.lines}"
        return found[0]

    def listen(self) -> None:
        """Read what the server says until it ends."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if "http://" in line:
                self.ready.set()
        self.ready.set()


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Served]:
    """`sightline` with these arguments; ended by a kill, as the worst case."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sightline", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    served = Served(process)
    listener = threading.Thread(target=served.listen, daemon=True)
    listener.start()
    try:
        yield served
    finally:
        process.kill()
        process.wait(30)
        listener.join(30)
        assert process.stderr is not None
        process.stderr.close()


@contextlib.contextmanager
def serving_model(log: Path, *arguments: str, before: Sequence[str] = (), **variables: str) -> Iterator[str]:
    """`sightline serve` with these arguments, by its address; stopped as by a user, so that its engine ends too.

    `before` are words before the command, `variables` more of its environment, `log` a file for its output.
    """
    words = [*before, sys.executable, "-m", "sightline", "serve", *arguments, "--port", "0"]
    with log.open("w") as output:
        process = subprocess.Popen(
            words, stdout=output, stderr=output, env=os.environ | {"PYTHONUNBUFFERED": "1", **variables}
        )
    try:
        while not (found := re.search(r"^serving .+ at (\S+)$", log.read_text(), re.MULTILINE)):
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield found[1]
    finally:
        process.terminate()
        code = process.wait(120)
    assert code == 0
