"""`sightline study`: run a grid of arms and seeds, inspect its jobs, compare arms, and delete old jobs.

`sightline study FILE.yaml` runs; `ls`, `show`, `compare`, `report` and `rm` read the ledger. `sightline.study` does the
work.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from sightline.cli.early import Overrides, check_jobs
from sightline.data.terminal import Screen, say
from sightline.errors import InputError
from sightline.study.launch import LaunchKind, write_scripts
from sightline.study.ledger import Ledger

if TYPE_CHECKING:
    from sightline.study.results import Outcome

Out = Annotated[Path, typer.Option(help="Directory of the study: jobs, ledger, tables.")]
Study = Annotated[str | None, typer.Option(help="Name of the study, if the directory has several.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", metavar="BENCH/METRIC", help="Metric to show; may be repeated (default: the primary metrics)."
    ),
]
_STYLES = {"better": "green", "worse": "red"}


class _RunsByDefault(TyperGroup):
    """`sightline study FILE.yaml` is `sightline study run FILE.yaml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_RunsByDefault, no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Run a study and inspect its ledger; `sightline study FILE.yaml` runs one."""


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="YAML file of the study.")],
    out: Annotated[Path | None, typer.Option(help="Directory to write (default: runs/ plus the file name).")] = None,
    overrides: Overrides = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of jobs to run at the same time.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the planned jobs and exit.")] = False,
    launch: Annotated[
        LaunchKind | None, typer.Option(help="Write launch scripts for another system, and run nothing.")
    ] = None,
) -> None:
    """Run the unfinished jobs of a study, then write its tables; an interrupted study resumes."""
    from sightline.config import load_config
    from sightline.study.config import StudyConfig

    config = load_config(StudyConfig, file, overrides or ())
    # slow imports come after the early checks
    from sightline.data.terminal import open_bars
    from sightline.study.estimate import estimate, refuse_unequal
    from sightline.study.plan import plan_study
    from sightline.study.report.writing import HTML, report_folder, write_study_report
    from sightline.study.runner import run_study
    from sightline.study.workers import JobResult

    plan, name = plan_study(config), file.stem
    check_jobs(plan.jobs.values())
    out = out or Path("runs") / name
    unequal = refuse_unequal(plan)
    for line in (*estimate(plan, out).lines(), *(f"  {sentence}, as the study allows" for sentence in unequal)):
        say(line)
    if launch is not None:
        first, *_ = write_scripts(plan, name, out, launch)
        say(f"scripts: {first.parent}; nothing was started; run {first.name} to start it")
    if dry_run or launch is not None:
        return
    failed = []
    with open_bars() as bars:
        task = bars.add_task("study", total=len(plan.jobs), note="")

        def on_done(done: JobResult) -> None:
            bars.update(task, advance=1, note=f"{done.piece.kind} {done.piece.label}"[:40])

        def note(text: str) -> None:
            bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

        failed = run_study(plan, name, out, workers=workers, on_done=on_done, log=note)
    for done in failed:
        say(f"{done.piece.kind} {done.piece.label}: {done.error}", err=True, red=True)
    print_outcome(write_study_report(plan, name, out))
    say(f"report: {report_folder(out, name) / HTML}")
    if failed:
        raise typer.Exit(1)


@app.command(name="ls")
def list_jobs(out: Out) -> None:
    """List all jobs in a study's directory, with state and cost."""
    table = Table("kind", "label", "key", "state", "seconds", "note")
    for entry in Ledger(out).entries().values():
        seconds = "" if entry.seconds is None else f"{entry.seconds:,.0f}"
        note = entry.note.strip().rpartition("\n")[2]
        table.add_row(entry.kind, entry.label, entry.key[:10], entry.state, seconds, note)
    Screen().print(table)


@app.command()
def show(key: Annotated[str, typer.Argument(help="Key of a job, or its beginning.")], out: Out) -> None:
    """Show one job: the equivalent command, and its counts."""
    from sightline.study.maintenance import find_job

    entry = find_job(Ledger(out), key)
    say(f"{entry.kind} {entry.label} ({entry.state}), {out / entry.folder}")
    say(entry.command)
    for name, value in {**entry.counts, **entry.numbers}.items():
        say(f"  {name}: {value:g}")
    if entry.note:
        say(entry.note)


@app.command()
def compare(
    out: Out,
    baseline: Annotated[str | None, typer.Option(help="Arm to compare with, or `base`.")] = None,
    metrics: Metrics = None,
    study: Study = None,
) -> None:
    """Compare the arms, each difference with its interval, over the jobs finished so far."""
    from sightline.study.maintenance import study_outcome

    print_outcome(study_outcome(out, study, baseline), metric_keys(metrics))


@app.command()
def report(
    out: Out,
    study: Study = None,
) -> None:
    """Rewrite the report, tables and numbers from the jobs finished so far; needs no model."""
    from sightline.study.maintenance import find_study
    from sightline.study.report.writing import HTML, report_folder, write_study_report

    name, plan = find_study(out, study)
    print_outcome(write_study_report(plan, name, out))
    say(f"report: {report_folder(out, name) / HTML}")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="JSON file to write, such as docs/results/NAME.json.")],
    out: Out,
    metrics: Metrics = None,
    study: Study = None,
) -> None:
    """Write the numbers of a finished study that pages quote: estimates with intervals, contrasts and claims."""
    from sightline.study.maintenance import find_study
    from sightline.study.report.published import export_study

    name, plan = find_study(out, study)
    results = export_study(file, plan, name, out, metric_keys(metrics))
    say(f"{len(results.findings)} estimates, {len(results.contrasts)} contrasts, {len(results.claims)} claims: {file}")


@app.command()
def rm(
    out: Out,
    keys: Annotated[list[str] | None, typer.Argument(help="Keys of jobs to delete, or their beginnings.")] = None,
    unused: Annotated[
        bool, typer.Option("--unused", help="Delete all jobs that no study of the directory needs.")
    ] = False,
) -> None:
    """Delete jobs and those that depend on them; running the study again redoes what it needs."""
    from sightline.study.maintenance import remove

    gone = remove(out, keys or (), unused=unused)
    for entry in gone:
        say(f"removed {entry.kind} {entry.label} ({entry.key[:10]})")
    say(f"{len(gone)} jobs removed")


def metric_keys(metrics: list[str] | None) -> list[tuple[str, str]]:
    """(benchmark, metric) of each BENCH/METRIC.

    Raises:
        InputError: one has no slash.
    """
    for name in metrics or ():
        if "/" not in name:
            raise InputError(f"--metric {name} names no benchmark; write it as BENCH/METRIC, such as lab-chair/chair_s")
    return [(bench, metric) for name in metrics or () for bench, _, metric in [name.partition("/")]]


def print_outcome(outcome: "Outcome", metrics: list[tuple[str, str]] | None = None) -> None:
    """Print the primary metrics, or those in `metrics`, of every arm; shares are in percent."""
    from sightline.study.report.headlines import contrast_sentences, headline_sentence
    from sightline.study.report.study_results import terminal_rows

    table = Table("arm", "benchmark", "metric", "value", "difference", "95 % interval", "verdict")
    for row in terminal_rows(outcome, metrics or ()):
        table.add_row(*row, style=_STYLES.get(row[-1]))
    console = Screen()
    console.print(table)
    for sentence in (*outcome.unequal, *contrast_sentences(outcome), headline_sentence(outcome)):
        if sentence:
            console.print(sentence)
    if outcome.missing:
        console.print(f"Incomplete (not every seed is finished): {', '.join(outcome.missing)}.")
