"""docs/guides/stages.md, run: all seven stages and the second round, each by the very command of the page."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sightline.apps.serve.engine import free_port
from sightline.lab import BASE
from sightline.records.manifest import read_manifest
from tests.test_readme import ROOT, commands

PAGE = ROOT / "docs/guides/stages.md"


class Round:
    """Runs the page's commands in an empty folder; a server stands until the next one, or the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.server: subprocess.Popen[str] | None = None
        for name in ("sightline", "examples"):
            (folder / name).symlink_to(ROOT / name)

    def run(self, words: list[str]) -> int:
        """The exit code of one command; 0 for a server that is ready."""
        words = [word.replace("8000", str(self.port)) for word in words]
        command = [sys.executable, *(words[1:] if words[0] == "python" else ["-m", *words])]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if words[1] == "serve":
            self.stop()
            command += ["--set", "device=cpu"]
            self.server = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True)
            assert self.server.stdout is not None
            assert self.server.stdout.readline().startswith("serving ")
            return 0
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1) and "Traceback" not in done.stderr, f"{shlex.join(words)}\n{done.stderr}"
        return done.returncode

    def stop(self) -> None:
        """End the server that stands."""
        if self.server is not None:
            with self.server:  # which closes its pipe
                self.server.terminate()
                assert self.server.wait(60) == 0
            self.server = None


@pytest.mark.slow
@pytest.mark.skipif(not (BASE / "model.safetensors").exists(), reason="there are no base weights yet")
def test_all_the_way_round(tmp_path: Path) -> None:
    round_ = Round(tmp_path)
    codes = []
    try:
        for words in commands(PAGE):
            code = round_.run(words)
            if words[1] == "monitor":
                codes.append(code)
                report = json.loads((tmp_path / "runs/round/watch/monitor.json").read_text())
                alarms = {one["name"] for one in report["findings"] if one["state"] == "alarm"}
                assert bool(alarms) == bool(code)
            else:
                assert code == 0, shlex.join(words)
    finally:
        round_.stop()
    assert codes == [0, 1] and {"brightness", "vocabulary"} <= alarms
    place = tmp_path / "runs/round"
    assert report["rows"] == 120 and report["judged"] > 50
    feedback = read_manifest(place / "feedback")
    assert feedback.complete and feedback.counts["pairs"] >= 3
    assert read_manifest(place / "train-2").counts["pairs_trained_on"] == feedback.counts["pairs"]
    assert "lab" in (place / "model/README.md").read_text() and (place / "report/report.html").exists()
    done = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=place / "model", check=False)
    assert done.returncode == 0
