"""README and docs are true: commands parse, targets and links exist, and, slow, the commands run.

Commands in `bash` blocks read what an earlier one of the page wrote, and those of the README run. Commands in `sh`
blocks have names to be filled in, such as MODEL: only their options are tested.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sightline.cli import COMMANDS, app
from sightline.lab import BASE
from sightline.records import Sample, read_manifest

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
#: What a test of these commands may not wait for, or has already: the clone, the set-up, the whole demo and all tests.
NOT_RUN = ("git", "cd", "make")
#: Numbers of the README, and what the slow test says instead, to take a minute and not ten.
SMALLER = {"--count 64": "--count 16", "--limit 40": "--limit 10"}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [body for name, body in fenced if name == language]


def commands(page: Path, language: str = "bash") -> Iterator[list[str]]:
    """The commands of all blocks of a shell as lists of words; lines may be continued, joined by && and commented."""
    for block in blocks(page, language):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split("&&"):
                words = shlex.split(command, comments=True)
                if words:
                    yield words


EVERY = [(page, words) for page in PAGES for words in commands(page)]
TEMPLATES = [words for page in PAGES for words in commands(page, "sh")]
CALLS = [words for words in [*(words for _, words in EVERY), *TEMPLATES] if words[0] == "sightline"]


def parsed(words: list[str]) -> dict[str, Any]:
    """The options of a call as the command line reads them; a usage error if it cannot."""
    assert words[0] in COMMANDS, f"there is no command {words[0]}"
    root: Any = get_command(app)
    context = root.make_context("sightline", words, resilient_parsing=True)
    name, command, rest = root.resolve_command(context, words)
    while hasattr(command, "commands") and rest:
        assert rest[0] in command.commands, f"there is no command {name} {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    values: dict[str, Any] = command.make_context(name, list(rest)).params
    return values


def test_there_is_a_quickstart_and_a_way_step_by_step() -> None:
    readme = [words for page, words in EVERY if page.name == "README.md"]
    assert ["make", "demo"] in readme and ["make", "test"] in readme
    steps = {
        tuple(words[1:3]) if COMMANDS[words[1]].is_group else words[1] for words in readme if words[0] == "sightline"
    }
    assert steps == {("lab", "scenes"), ("pairs", "bdhs"), "train", "eval", "report", "check"}


def test_the_readme_is_short_and_has_five_commands_on_a_model() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert [words[1] for words in commands(ROOT / "README.md", "sh")] == ["pairs", "train", "eval", "eval", "report"]


@pytest.mark.parametrize(("page", "words"), EVERY, ids=[" ".join(words)[:60] for _, words in EVERY])
def test_every_command_is_known(page: Path, words: list[str]) -> None:
    """A new sort of command must be added to this test before it may be written down."""
    assert words[0] in (*NOT_RUN, "pip", "python", "sightline"), f"{page.name}: {words}"


@pytest.mark.parametrize("target", sorted({words[1] for _, words in EVERY if words[0] == "make"}))
def test_make_has_the_target(target: str) -> None:
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("words", CALLS, ids=[" ".join(words)[:60] for words in CALLS])
def test_options_exist_and_none_is_missing(words: list[str]) -> None:
    values = parsed(words[1:])
    given = {word for word in words if word.startswith("--")}
    assert len([value for value in values.values() if value not in (None, [], ())]) >= len(given)
    for path in (value for value in values.values() if isinstance(value, Path)):
        if path.parts[0] == "sightline" and path != Path("sightline/lab/base"):
            assert (ROOT / path).exists(), path


def test_an_option_that_does_not_exist_would_be_found() -> None:
    """The test of the test: a misspelled option, a missing one, a value of the wrong kind, no such command."""
    for wrong in (
        ["report", "--bass", "x", "--aligned", "y", "--out", "z"],
        ["report", "--aligned", "y", "--out", "z"],
        ["lab", "scenes", "--out", "x", "--count", "many"],
        ["lab", "scene", "--out", "x"],
        ["repport"],
    ):
        with pytest.raises((Exception, SystemExit)) as caught:
            parsed(wrong)
        assert type(caught.value).__name__ in (
            "NoSuchOption",
            "MissingParameter",
            "BadParameter",
            "UsageError",
            "AssertionError",
        )


def test_every_step_reads_what_an_earlier_one_wrote() -> None:
    for page in PAGES:
        written: list[Path] = []
        for words in commands(page):
            if words[0] != "sightline":
                continue
            values = parsed(words[1:])
            read = [
                path
                for name, value in values.items()
                if name != "out" and (words[1], name) != ("serve", "log")
                for path in _paths(value)
            ]
            for path in read:
                if path.parts[0] == "runs":
                    assert any(path.is_relative_to(out) for out in written), f"{page.name}: nothing has written {path}"
            written += _paths(values.get("out")) + (_paths(values.get("log")) if words[1] == "serve" else [])


def _paths(value: object) -> list[Path]:
    if isinstance(value, str) and value.startswith(("runs/", "sightline/")):
        return [Path(value)]
    return [path for path in (value if isinstance(value, list | tuple) else [value]) if isinstance(path, Path)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere_and_no_blank_is_left(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target
    assert re.findall(r"\b[A-Z]+_(?:TABLE|MINUTES)\b", text) == []


def test_the_tree_shows_the_rooms_that_there_are() -> None:
    tree = next(block for block in blocks(ROOT / "README.md", "") if block.startswith("sightline/"))
    shown = set(re.findall(r"^  (\w+)/", tree, flags=re.MULTILINE))
    package = ROOT / "sightline"
    assert shown == {path.name for path in package.iterdir() if (path / "__init__.py").exists()}


def test_the_rows_that_are_shown_are_rows() -> None:
    rows = [line for block in blocks(ROOT / "README.md", "json") for line in block.splitlines() if line]
    assert rows
    for row in rows:
        assert Sample.model_validate_json(row).reference


@pytest.mark.slow
@pytest.mark.skipif(not (BASE / "model.safetensors").exists(), reason="there are no base weights yet")
def test_the_commands_run(tmp_path: Path) -> None:
    """Every `sightline` command of the README in its order, in an empty directory that sees the package's folder."""
    (tmp_path / "sightline").symlink_to(ROOT / "sightline")
    readme, shrunk = ROOT / "README.md", set()
    for words in commands(readme):
        if words[0] in NOT_RUN:
            continue
        line = shlex.join(words)
        for number, smaller in SMALLER.items():
            if number in line:
                shrunk.add(number)
                line = line.replace(number, smaller)
        command = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert shrunk == set(SMALLER), "the table names numbers that the README does not have"
    steps = tmp_path / "runs/steps"
    assert all(read_manifest(steps / name).complete for name in ("samples", "pairs", "train", "base", "aligned"))
    assert "<html" in (steps / "report/report.html").read_text(encoding="utf-8")
