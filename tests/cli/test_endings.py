"""Exits of commands: bad input with one line and code 2, Ctrl-C with 130, a bug with its traceback, help at once."""

import errno
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sightline
from sightline.cli import COMMANDS, CommandEntry, app
from sightline.config import Config
from sightline.errors import InputError, disk_problem
from sightline.records import Score
from sightline.records.manifest import Stage
from sightline.records.store import write_rows

COMMAND = """
import os
import signal
import time
from pathlib import Path

import typer

from sightline.errors import InputError
from sightline.records.store import atomic_write

app = typer.Typer()


@app.command()
def run(how: str) -> None:
    \"\"\"End as told.\"\"\"
    if how == "input":
        raise InputError("samples.jsonl line 3: key [b]'prompt'[/b] is\\nmissing")
    if how == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)
    if how == "hostile":
        raise InputError("[red]x[/red] \\x1b]0;TITLE\\x07\\u202e")
    if how == "terminate":
        with atomic_write(Path("row.jsonl")) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)
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
    monkeypatch.setitem(COMMANDS, "end", CommandEntry("ending_command:app", "End as told."))
    monkeypatch.setitem(COMMANDS, "ends", CommandEntry("ending_command:app", "End in a group.", is_group=True))


@pytest.mark.parametrize("words", [("end",), ("ends", "run")])
def test_bad_input_is_one_sentence_and_code_2(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "input"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "error: samples.jsonl line 3: key [b]'prompt'[/b] is missing\n"


def test_interrupt_is_130_and_says_how_to_go_on() -> None:
    result = CliRunner().invoke(app, ["end", "interrupt"])
    assert result.exit_code == 130
    assert result.stderr == "interrupted; run the same command again to resume\n"


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
        "cli.COMMANDS['end'] = cli.CommandEntry('ending_command:app', '')\n"
        "import sys; sys.argv = ['sightline', 'end', 'interrupt']; cli.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "interrupted; run the same command again to resume\n"


def _run(words: list[str], folder: Path, limit: int | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """`python -m sightline` as a process of its own; with `limit`, no file may grow beyond so many bytes."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = {**os.environ, "PYTHONPATH": str(Path(sightline.__file__).parents[1]), **more}
    command = [sys.executable, "-m", "sightline", *words]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False, preexec_fn=limited
    )


def _is_one_sentence(done: subprocess.CompletedProcess[str], *parts: str) -> bool:
    error = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return all(part in error for part in (*parts, "completed work is kept", "run the same command again"))


SCENES = ["lab", "scenes", "--split", "preference", "--count", "40", "--out", "out"]


def test_a_disk_that_takes_no_more_is_a_sentence_and_a_rerun_goes_on(tmp_path: Path) -> None:
    """The real system's refusal, by a limit on the size of files; with space the same command ends well."""
    full = _run(SCENES, tmp_path, limit=4000)
    assert _is_one_sentence(full, "out", "the file would be larger than the system allows")
    assert not list(tmp_path.rglob("*.tmp"))
    assert _run(SCENES, tmp_path).returncode == 0
    assert len((tmp_path / "out/samples.jsonl").read_text().splitlines()) == 40


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_device_is_named_with_the_file(tmp_path: Path) -> None:
    """A write to an open file that fails names no path of its own."""
    rows = tmp_path / "built.jsonl"
    (tmp_path / ".built.jsonl.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_rows(rows, [Score(sample_id="a", cluster="a", values={})])
    assert disk_problem(caught.value) == (
        f"{rows} cannot be read or written: no space is left on the device; completed work is kept: fix this and run"
        " the same command again"
    )


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ("a file in here", "no space is left")),
        (OSError(errno.EROFS, "Read-only", "out/x"), ("out/x", "read-only")),
        (PermissionError(errno.EACCES, "denied", "out/x"), ("out/x", "permission is denied")),
        (FileNotFoundError(errno.ENOENT, "gone", "out/x"), ("out/x", "no longer exists")),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            ("no space is left",),
        ),
        (sqlite3.OperationalError("database or disk is full"), ("no space is left",)),
        (RuntimeError("I/O error: Read-only file system (os error 30)"), ("read-only",)),
    ],
)
def test_errors_of_the_disk_are_sentences(error: Exception, parts: tuple[str, ...]) -> None:
    sentence = disk_problem(error, Path("here")) or ""
    assert all(part in sentence for part in parts), sentence


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), ConnectionResetError(104, "reset"), BrokenPipeError(32, "x"), OSError("no number")]
)
def test_other_errors_are_not_the_disks(error: Exception) -> None:
    assert disk_problem(error) is None


def test_hostile_text_in_an_error_is_shown_as_codes() -> None:
    result = CliRunner().invoke(app, ["end", "hostile"])
    assert result.exit_code == 2
    assert result.stderr == "error: [red]x[/red] \\u001b]0;TITLE\\u0007\\u202e\n"


def test_a_real_sigterm(tmp_path: Path) -> None:
    """As Ctrl-C, with the code that a shell reports; temporary files are removed."""
    code = (
        "import sightline.cli as cli\n"
        "cli.COMMANDS['end'] = cli.CommandEntry('ending_command:app', '')\n"
        "import sys; sys.argv = ['sightline', 'end', 'terminate']; cli.main()"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(sightline.__file__).parents[1]}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "ended by SIGTERM; run the same command again to resume\n"
    assert [path.name for path in tmp_path.iterdir() if "row" in path.name] == []


def test_a_forked_process_and_one_of_many_keep_the_systems_way(tmp_path: Path) -> None:
    """A child that is ended must not report for the command; a process of a distributed run waits in the others."""
    code = (
        "import os, signal, time, sightline.cli as cli\n"
        "cli._end_with_sigterm()\n"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
        "begun, begin = os.pipe()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os.write(begin, b'x')  # Python drops signals that arrive while it forks\n"
        "    time.sleep(20)\n"
        "    os._exit(7)\n"
        "os.read(begun, 1)\n"
        "os.kill(child, signal.SIGTERM)\n"
        "print(os.waitpid(child, 0)[1])\n"
    )
    for world, is_default in (("1", False), ("2", True)):
        environment = {**os.environ, "WORLD_SIZE": world}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == f"{is_default}\n{int(signal.SIGTERM)}\n"


def test_a_directory_that_vanished_is_not_finished(tmp_path: Path) -> None:
    """Output from before the removal is lost, and the rest would look complete."""

    class Nothing(Config):
        pass

    stage = Stage.open(tmp_path / "out", "pairs", Nothing(), {})
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(InputError, match=r"was removed or replaced while 'pairs' wrote to it.*run the same command"):
        stage.finish()
    assert not (tmp_path / "out/manifest.json").exists()
