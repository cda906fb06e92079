"""The versions that the package claims to support are those that are tested.

`make test-oldest` runs the tests of models, losses, builders, training and evaluation with `constraints-oldest.txt`.
"""

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OLDEST = ROOT / ".venv-oldest" / "bin"
SOURCES = sorted(path for folder in ("sightline", "tests") for path in (ROOT / folder).rglob("*.py"))


def pins(name: str) -> dict[str, str]:
    """Package -> version of a file of constraints."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.lower().split("==") for line in lines if "==" in line and not line.startswith("#"))


def bounds() -> dict[str, tuple[int, ...]]:
    """Package -> lower bound of each dependency of the package."""
    found = {}
    for line in PROJECT["dependencies"]:
        match = re.fullmatch(r"([\w-]+)>=([\d.]+)(,<\d+)?", line)
        assert match, f"{line} has no lower bound"
        found[match[1]] = numbers(match[2])
    return found


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    tested = {name: numbers(version) for name, version in pins("constraints-oldest.txt").items()}
    for name, bound in bounds().items():
        assert tested[name][: len(bound)] == bound, name


def test_the_pinned_versions_are_within_the_bounds() -> None:
    tested = pins("constraints.txt")
    for name, bound in bounds().items():
        assert numbers(tested[name])[: len(bound)] >= bound, name
    assert "transformers>=5.10,<6" in PROJECT["dependencies"] and tested["transformers"].startswith("5.")


def test_the_classifiers_begin_with_the_required_python() -> None:
    named = [
        int(found[1])
        for line in PROJECT["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", line))
    ]
    assert PROJECT["requires-python"] == f">=3.{named[0]}"
    assert named == list(range(named[0], named[-1] + 1))


def test_all_files_have_the_syntax_of_the_required_python() -> None:
    required = numbers(PROJECT["requires-python"].removeprefix(">="))
    for path in SOURCES:
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(required[0], required[1]))


def test_a_page_names_both_ends() -> None:
    page = (ROOT / "docs" / "guides" / "installing.md").read_text(encoding="utf-8")
    oldest, newest = pins("constraints-oldest.txt"), pins("constraints.txt")
    for name in ("transformers", "peft", "torch", "accelerate", "datasets"):
        assert f"| {name} | {oldest[name]} | {newest[name]} |" in page


@pytest.mark.slow
@pytest.mark.skipif(not OLDEST.is_dir(), reason="needs .venv-oldest; run `make test-oldest`")
def test_the_oldest_packages_load_score_and_sample() -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    files = [f"tests/models/test_{name}.py" for name in ("loading", "scorer", "sampler")]
    words = [str(OLDEST / "python"), "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *files]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
    listed = subprocess.run(
        [OLDEST / "python", "-m", "sightline", "list", "families"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.returncode == 0 and "llava" in listed.stdout, listed.stderr
