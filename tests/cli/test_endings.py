"""How commands end: bad input with one sentence and code 2, Ctrl-C with 130, a bug with its trace, help at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sightline
from sightline.cli import COMMANDS, Entry, app

COMMAND = """
import os
import signal
import time

import typer

from sightline.errors import InputError

app = typer.Typer()


@app.command()
def run(how: str) -> None:
    \"\"\"End as told.\"\"\"
    if how == "input":
        raise InputError("samples.jsonl line 3: key [b]'prompt'[/b] is\\nmissing")
    if how == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)
    if how == "bug":
        raise ValueError("a bug")
    print("done")
"""


@pytest.fixture(autouse=True)
def _command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command `end` and a group `ends` of one command, from a module outside the package."""
    (tmp_path / "ending_command.py").write_text(COMMAND, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "end", Entry("ending_command", "End as told."))
    monkeypatch.setitem(COMMANDS, "ends", Entry("ending_command", "End in a group.", is_group=True))


@pytest.mark.parametrize("words", [("end",), ("ends", "run")])
def test_bad_input_is_one_sentence_and_code_2(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "input"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "error: samples.jsonl line 3: key [b]'prompt'[/b] is missing\n"


def test_interrupt_is_130_and_says_how_to_go_on() -> None:
    result = CliRunner().invoke(app, ["end", "interrupt"])
    assert result.exit_code == 130
    assert result.stderr == "interrupted; run the same command again to go on\n"


def test_a_bug_keeps_its_trace() -> None:
    result = CliRunner().invoke(app, ["end", "bug"])
    assert isinstance(result.exception, ValueError)


def test_success_is_silent_about_itself() -> None:
    result = CliRunner().invoke(app, ["ends", "run", "well"])
    assert (result.exit_code, result.output) == (0, "done\n")


def test_a_misspelled_command_is_answered_with_the_nearest() -> None:
    result = CliRunner().invoke(app, ["trian"])
    assert result.exit_code == 2
    assert "Did you mean 'train'?" in result.stderr


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items()])
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f" {name} [OPTIONS]" in result.output
    assert "--show-completion" not in result.output and "--install-completion" not in result.output


def test_help_and_mistakes_answer_without_torch() -> None:
    code = "import sys\nfrom sightline.cli import main\ntry:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    for arguments in (["--help"], ["trian"], ["--version"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.stdout.splitlines()[-1] == "False"


def test_the_real_program() -> None:
    """`python -m sightline` as a process of its own: the version, and code 2 on a command that does not exist."""
    command = [sys.executable, "-m", "sightline"]
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"sightline {sightline.__version__}\n"
    assert subprocess.run([*command, "nothing"], capture_output=True, check=False).returncode == 2


def test_a_real_ctrl_c(tmp_path: Path) -> None:
    code = (
        "import sightline.cli as cli\n"
        "cli.COMMANDS['end'] = cli.Entry('ending_command', '')\n"
        "import sys; sys.argv = ['sightline', 'end', 'interrupt']; cli.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "interrupted; run the same command again to go on\n"
