"""The command line: the table of commands, error handling, and exit codes.

Each command is a typer app in this package, imported only when it runs, so that help and usage errors need no torch. To
add a command, write its app and a line in `COMMANDS`.
"""

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

import sightline
from sightline.data.terminal import one_line, say
from sightline.errors import InputError, disk_problem
from sightline.registry import PLUGIN_VARIABLE, load_plugin, load_plugins

#: Exit codes; the last two are those a shell reports for programs ended by these signals.
INPUT_ERROR, INTERRUPTED, TERMINATED = 2, 128 + signal.SIGINT, 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM: the work ends as after Ctrl-C, with temporary files removed and helper processes stopped."""


@dataclass(frozen=True)
class CommandEntry:
    """A command: its typer app ("package.module:attribute"), its line of help, and its panel in the help."""

    app: str
    help: str
    panel: str = ""
    is_group: bool = False


_HERE = "sightline.cli"
DATA, TRAIN, MEASURE, STUDY, DEPLOY, RECIPES = "Make data", "Train", "Measure", "Study", "Deploy", "Recipes"
COMMANDS: dict[str, CommandEntry] = {
    "lab": CommandEntry(
        f"{_HERE}.lab:lab_app", "The embedded lab: draw scenes, train its base model.", DATA, is_group=True
    ),
    "fetch": CommandEntry(f"{_HERE}.exchange:fetch_app", "Fetch a model or a dataset from the hub.", DATA),
    "import": CommandEntry(
        f"{_HERE}.exchange:import_app", "Import preferences and instructions from other layouts.", DATA
    ),
    "pairs": CommandEntry(f"{_HERE}.pairs:app", "Build preference pairs from samples.", DATA, is_group=True),
    "label": CommandEntry(
        f"{_HERE}.people:label_app", "Let people compare answers, and measure their agreement.", DATA
    ),
    "list": CommandEntry(f"{_HERE}.listing:app", "List losses, builders, benchmarks, judges, ...", DATA),
    "check": CommandEntry(f"{_HERE}.check:app", "Look for problems in a dataset of pairs.", DATA),
    "train": CommandEntry(f"{_HERE}.train:app", "Train a model on preference pairs or by rewards.", TRAIN),
    "eval": CommandEntry(f"{_HERE}.measure:eval_app", "Evaluate a model on benchmarks.", MEASURE),
    "eval-merge": CommandEntry(f"{_HERE}.measure:eval_merge_app", "Merge the shards of an evaluation.", MEASURE),
    "score": CommandEntry(f"{_HERE}.score:app", "Score a file of answers by a benchmark's official rule.", MEASURE),
    "compare": CommandEntry(
        f"{_HERE}.report:compare_app", "Compare evaluations item by item, with tests and power.", MEASURE
    ),
    "probe": CommandEntry(f"{_HERE}.measure:probe_app", "Check whether a model uses its images.", MEASURE),
    "judge": CommandEntry(
        f"{_HERE}.measure:judge_app", "Measure how often a judge prefers the chosen answer.", MEASURE
    ),
    "demo": CommandEntry(
        f"{_HERE}.lab:demo_app", "Run the whole pipeline on the embedded lab and write its report.", STUDY
    ),
    "study": CommandEntry(
        f"{_HERE}.study:app", "Run a grid of arms and seeds, and compare them.", STUDY, is_group=True
    ),
    "report": CommandEntry(f"{_HERE}.report:report_app", "Write the report on a base and an aligned model.", STUDY),
    "export": CommandEntry(
        f"{_HERE}.exchange:export_app",
        "Export pairs to another layout, or a model for deployment.",
        DEPLOY,
        is_group=True,
    ),
    "chat": CommandEntry(f"{_HERE}.people:chat_app", "Chat with one model, or with two side by side.", DEPLOY),
    "serve": CommandEntry(f"{_HERE}.deploy:serve_app", "Serve a model, with limits, a log and feedback.", DEPLOY),
    "monitor": CommandEntry(
        f"{_HERE}.deploy:monitor_app", "Watch a served model's log for drift (anytime-valid tests).", DEPLOY
    ),
    "match": CommandEntry(
        f"{_HERE}.recipes:match_app", "Make training rows for entity matching.", RECIPES, is_group=True
    ),
    "compose": CommandEntry(f"{_HERE}.recipes:compose_app", "Merge models of several media into one.", RECIPES),
    "curate": CommandEntry(f"{_HERE}.recipes:curate_app", "Keep the best instruction data by reward models.", RECIPES),
}


class Commands(TyperGroup):
    """The group of all commands: imports a command when it runs, and reports user errors in one line."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # Placeholders for help and spelling suggestions; the real commands are imported when they run.
        self.commands = {
            name: TyperCommand(name, help=entry.help, rich_help_panel=entry.panel) for name, entry in COMMANDS.items()
        }
        self._words: list[str] = []

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Import the command that `args` names; returns it with the remaining arguments."""
        _load_plugins(ctx.params.get("plugin") or ())
        self._words = args
        name, listed, rest = super().resolve_command(ctx, args)
        if name is None or listed is None:
            return name, listed, rest
        entry = COMMANDS[name]
        module, _, attribute = entry.app.partition(":")
        app = getattr(import_module(module), attribute)
        command = get_group(app) if entry.is_group else get_command(app)
        command.name, command.help = name, command.help or entry.help
        # typer treats a single-command app as a program and adds options to install completion
        command.params = [param for param in command.params if not str(param.name).endswith("_completion")]
        return name, command, rest

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run a command; input and disk errors exit with code 2 and one line, signals with their code.

        Only bugs show a traceback.
        """
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise _fail(str(error)) from error
        except Terminated as error:
            say("ended by SIGTERM; run the same command again to resume", err=True)
            raise typer.Exit(TERMINATED) from error
        except KeyboardInterrupt as error:
            say("interrupted; run the same command again to resume", err=True)
            raise typer.Exit(INTERRUPTED) from error
        except Exception as error:
            problem = disk_problem(error, _out_option(self._words))
            if problem is None:
                raise
            raise _fail(problem) from error


def _fail(sentence: str) -> typer.Exit:
    """Print an error message; returns the exit to raise."""
    say(f"error: {one_line(sentence)}", err=True, red=True)
    return typer.Exit(INPUT_ERROR)


def _out_option(words: Sequence[str]) -> Path | None:
    """The value of `--out`, to locate a disk error that names no file."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == "--out":
            return Path(value if equals else following)
    return None


app = typer.Typer(
    name="sightline",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"sightline {sightline.__version__}")
        raise typer.Exit


def _load_plugins(places: Sequence[str]) -> None:
    """Load plugins before the command is looked up, and pass them on to the processes that it starts."""
    load_plugins()
    for place in places:
        load_plugin(place)
    known = [*filter(None, os.environ.get(PLUGIN_VARIABLE, "").split(os.pathsep)), *places]
    if places:
        os.environ[PLUGIN_VARIABLE] = os.pathsep.join(dict.fromkeys(known))


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|MODULE",
            help="Python file or module that registers losses, builders, benchmarks, ...; may be repeated.",
        ),
    ] = None,
) -> None:
    """Align vision-language models with their images: build preference pairs, train, evaluate, report."""


def main() -> None:
    """The console script `sightline`."""
    _end_with_sigterm()
    app()


def _end_with_sigterm() -> None:
    """Make SIGTERM end the work as Ctrl-C does, in this process but not in forked ones.

    Processes of a distributed run keep the default handler, since they could not respond while waiting for others.
    """
    if threading.current_thread() is not threading.main_thread() or int(os.environ.get("WORLD_SIZE", "1") or 1) > 1:
        return
    own = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() != own:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Terminated

    signal.signal(signal.SIGTERM, end)
