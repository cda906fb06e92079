"""The command line: which commands there are, and how they end. A command's work is done in its room.

Each command is a file of this folder that holds a typer `app`; it is imported when it runs, so that help and mistakes
answer at once instead of after torch. To add one, write the file and its line in `COMMANDS`.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

import sightline
from sightline.errors import InputError

INPUT_ERROR, INTERRUPTED = 2, 130  # exit codes; 130 is what a shell reports for a program ended by Ctrl-C


@dataclass(frozen=True)
class Entry:
    """Where a command is: the module whose `app` it is, its line of help, and whether it has commands of its own."""

    module: str
    help: str
    is_group: bool = False


COMMANDS: dict[str, Entry] = {
    "demo": Entry("sightline.cli.demo", "Run the whole way on the embedded lab: pictures, pairs, training, report."),
    "lab": Entry("sightline.cli.lab", "The embedded world: draw scenes, train its base model.", is_group=True),
    "fetch": Entry("sightline.cli.fetch", "Fetch a model or a data set from the hub."),
    "import": Entry("sightline.cli.import_", "Read published and peers' layouts of preferences and instructions."),
    "export": Entry(
        "sightline.cli.export", "Write pairs in a peer's layout, or a model to be deployed.", is_group=True
    ),
    "pairs": Entry("sightline.cli.pairs", "Build preference pairs from samples.", is_group=True),
    "match": Entry("sightline.cli.match", "Make training rows for entity matching.", is_group=True),
    "probe": Entry("sightline.cli.probe", "Ask whether a model uses its pictures at all."),
    "judge": Entry("sightline.cli.judge", "Measure how often a judge prefers the chosen answer of pairs."),
    "compose": Entry("sightline.cli.compose", "Make one model of several that take different media."),
    "label": Entry("sightline.cli.label", "Let people compare answers in a browser, and measure how far they agree."),
    "chat": Entry("sightline.cli.chat", "Talk with one model or two beside each other in a browser."),
    "train": Entry("sightline.cli.train", "Train a model on preference pairs."),
    "curate": Entry("sightline.cli.curate", "Keep the best of instruction data, by two reward models."),
    "check": Entry("sightline.cli.check", "Look for what is wrong with a dataset of pairs."),
    "eval": Entry("sightline.cli.eval", "Measure a model on benchmarks."),
    "eval-merge": Entry("sightline.cli.eval_merge", "Bring the shards of an evaluation together."),
    "score": Entry("sightline.cli.score", "Score a file of answers by a benchmark's official rule."),
    "compare": Entry("sightline.cli.compare", "Compare two models' evaluations, item by item, with tests and power."),
    "study": Entry("sightline.cli.study", "Run a grid of arms and seeds, and compare them.", is_group=True),
    "serve": Entry("sightline.cli.serve", "Serve a model, with limits, a log and feedback."),
    "monitor": Entry(
        "sightline.cli.monitor", "Watch a served model's log for drift, with tests that may be looked at."
    ),
    "report": Entry("sightline.cli.report", "Write the report of a base and an aligned model."),
}


class Commands(TyperGroup):
    """The group of all commands: imports one when it runs, and turns what people do wrong into a sentence."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # What help lists and misspellings are compared with; the commands themselves are imported to run.
        self.commands = {name: TyperCommand(name, help=entry.help) for name, entry in COMMANDS.items()}

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """The command that `args` names, imported, with the rest of them."""
        name, listed, rest = super().resolve_command(ctx, args)
        if name is None or listed is None:
            return name, listed, rest
        entry = COMMANDS[name]
        app = import_module(entry.module).app
        command = get_group(app) if entry.is_group else get_command(app)
        command.name, command.help = name, command.help or entry.help
        # typer takes an app of one command for a program of its own, with options to install its completion
        command.params = [param for param in command.params if not str(param.name).endswith("_completion")]
        return name, command, rest

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Run; a mistake in the input ends with code 2 and one sentence, Ctrl-C with code 130, neither with a trace."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            sentence = " ".join(str(error).split())
            typer.secho(f"error: {sentence}", fg=typer.colors.RED, err=True)
            raise typer.Exit(INPUT_ERROR) from error
        except KeyboardInterrupt as error:
            typer.secho("interrupted; run the same command again to go on", err=True)
            raise typer.Exit(INTERRUPTED) from error


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
        typer.echo(f"sightline {sightline.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Align vision-language models with what they see: build preference pairs, train, measure, report."""


def main() -> None:
    """The console script `sightline`."""
    app()
