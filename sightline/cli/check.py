"""`sightline check`: report the problems of a dataset of pairs in one table, worst first.

`sightline.check` does the work; benchmark names are resolved to samples here, since that package does not know them.
"""

import tempfile
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sightline.check.findings import GIVE_AWAY, CheckLine, Report
from sightline.cli.early import Overrides, check_places
from sightline.cli.model_options import ELSEWHERE, opens_model
from sightline.config import MAX_SEED
from sightline.data.terminal import Screen, escape_code, say, visible
from sightline.models.spec import ModelSpec
from sightline.records import Estimate

if TYPE_CHECKING:
    from sightline.check.overlap import BenchmarkSource
    from sightline.check.run import CheckPlan
    from sightline.data.terminal import Progress
    from sightline.records import Manifest, Stage

app = typer.Typer()


@app.command()
@opens_model(required=False, help="The model to be trained: a directory, a hub id, or lab.")
def check(  # noqa: PLR0913 - one parameter an option
    dataset: Annotated[Path, typer.Argument(help="Directory of pairs: pairs.jsonl, or Parquet files in data/.")],
    model: ModelSpec | None = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BENCH",
            help="Benchmark name, or file or folder of pictures or questions, to check for overlap; may be repeated.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to write: check.json, findings.jsonl.")] = None,
    fix: Annotated[
        Path | None, typer.Option(help="Directory to write: a copy of the dataset without the bad rows.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the benchmarks' files and pictures.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes that open images.")] = 1,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Report image URLs instead of failing; none is fetched.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if anything is bad.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file of the check's config.")] = None,
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of all random draws.")] = 0,
) -> None:
    """Check every row and image of a dataset of pairs for problems that would spoil training or evaluation.

    For example: sightline check PAIRS_DIR --model DIR --against lab-vqa --against photos/ --fix CLEAN_DIR
    """
    from sightline.check.findings import CheckConfig
    from sightline.config import load_config

    given = [*(overrides or ()), *(["allow_remote=true"] if allow_remote else ())]
    settings = load_config(CheckConfig, config, given, elsewhere=ELSEWHERE)
    check_places(dataset=dataset)
    from sightline.check.run import CheckPlan  # slow imports come after the early checks

    with tempfile.TemporaryDirectory(prefix="sightline-check-") as temporary:
        folder = Path(temporary)
        benches = tuple(_against(name, data or folder / "data") for name in against or ())
        plan = CheckPlan(dataset, settings, seed, model, benches, workers)
        report, fixed = _check_and_fix(plan, folder, out, fix)
    print_report(report)
    written = [] if out is None else [f"check: {out}"]
    written += [f"pairs: {fix} ({copy.counts['pairs']} kept, removed {copy.dropped or 'none'})" for copy in fixed]
    for line in written:
        say(line)
    if strict and report.is_bad:
        raise typer.Exit(1)


def _check_and_fix(
    plan: "CheckPlan", folder: Path, out: Path | None, fix: Path | None
) -> "tuple[Report, list[Manifest]]":
    """Run the check in `out`, or else in `folder`, and then the copy into `fix`, each with its progress bar."""
    from sightline.check.fix import claim_fix, fix_dataset
    from sightline.check.run import FINDINGS, check_dataset, check_into
    from sightline.data.terminal import open_bars

    stages: list[Stage] = []

    def claim() -> None:
        if fix is not None:
            stages.append(claim_fix(plan, fix))

    with open_bars() as bars:

        def bar(label: str) -> "Progress":
            task = bars.add_task(label, total=None, note="")
            return lambda done, total: bars.update(task, completed=done, total=total)

        report = check_into(plan, folder, bar, claim) if out is None else check_dataset(plan, out, bar, claim)
        fixed = [fix_dataset(plan, (out or folder) / FINDINGS, stage, bar("copy")) for stage in stages]
    return report, fixed


def _against(name: str, folder: Path) -> "BenchmarkSource":
    """The overlap target: a benchmark by its name, else a path."""
    from sightline.check.overlap import source_from_path, source_from_samples
    from sightline.errors import InputError
    from sightline.evals.benchmark import BenchmarkOptions
    from sightline.evals.registry import BENCHMARKS, get_benchmark

    if name in BENCHMARKS:
        benchmark = get_benchmark(name, BenchmarkOptions(folder))
        return source_from_samples(name, lambda: benchmark.folder, benchmark.samples)
    if not Path(name).exists():
        try:
            get_benchmark(name, BenchmarkOptions(folder))
        except InputError as error:
            raise InputError(f"{name!r} is neither a file nor a folder, and {error}") from error
    return source_from_path(Path(name))


_ORDER = {"bad": 0, "look": 1, "ok": 2}
_STYLES = {"bad": "bold red", "look": "yellow", "ok": "green"}
_MOST, _WHOLE = 24, 10_000  # characters of an id, and of a line
_LEFTWARD = ("R", "AL", "AN")  # right-to-left letters, which would reorder the cells of a row


def print_report(report: Report, console: Screen | None = None) -> None:
    """Print the findings, the measurements, and the skipped checks."""
    console = console or Screen()
    table = Table("verdict", "check", "found", "first rows, or within pairs", box=SIMPLE_HEAD)
    lines = sorted(report.lines, key=lambda line: (_ORDER[line.verdict], -_size(line)))
    shown = [line for line in lines if _is_shown(line)]
    for line in shown:
        table.add_row(
            Text(line.verdict, style=_STYLES[line.verdict]), Text(plain(line.title, 60)), *map(Text, _cells(line))
        )
    if shown:
        console.print(table)
    console.print(Text(_summary(report)))
    quiet = [line for line in lines if line not in shown]
    for label, measured in (("Nothing found", False), ("No shortcut cue", True)):
        titles = [line.title for line in quiet if (line.value is not None) is measured]
        if titles:
            console.print(Text(f"{label}: {plain('; '.join(titles), _WHOLE)}."))
    for what, why in _by_reason(report.skipped).items():
        console.print(Text(f"Not checked, {what}: {plain('; '.join(why), _WHOLE)}."))
    if any(line.within is not None for line in lines):
        console.print(
            Text("An AUC of 0.5 separates chosen from rejected answers no better than chance, 1 (or 0) perfectly.")
        )


def _is_shown(line: CheckLine) -> bool:
    """Whether to show a line: all findings, and two shortcut cues even if they are harmless."""
    if line.check.startswith(GIVE_AWAY) and line.verdict == "ok":
        return line.check.removeprefix(GIVE_AWAY) in ("words", "bag of words")
    return bool(line.verdict != "ok" or line.value is not None or line.rows)


def _cells(line: CheckLine) -> tuple[str, str]:
    """The two cells of a line: the finding, and its details."""
    if line.value is None:
        return f"{line.rows} ({_percent(line.share)})", ", ".join(plain(name) for name in line.examples)
    unscored = f", {line.value.unscored} unscored" if line.value.unscored else ""
    if line.within is None:
        return _value(line.value), f"n {line.n}{unscored}"
    return f"AUC {_value(line.value)}", f"{_value(line.within)}, n {line.n}{unscored}"


def plain(text: str, most: int = _MOST) -> str:
    """The text on one line, cut to `most` characters; invisible characters are written as their codes."""
    shown = "".join(_shown(character) for character in text[: most + 1])
    return shown if len(text) <= most and len(shown) <= most else f"{shown[: most - 1]}\u2026"


def _shown(character: str) -> str:
    is_leftward = unicodedata.bidirectional(character) in _LEFTWARD
    return escape_code(character) if is_leftward else visible(character, kept="")


def _summary(report: Report) -> str:
    return (
        f"{report.rows} rows ({report.readable} readable), {report.images} images ({report.distinct_images} "
        f"distinct and readable); --fix would remove {report.removable} rows."
    )


def _size(line: CheckLine) -> float:
    """The size of a finding, to sort by: a share, or an AUC's distance from 0.5."""
    values = [estimate.value for estimate in (line.value, line.within) if estimate is not None]
    if not values:
        return line.share or 0.0
    return max(abs(value - 0.5) for value in values if value is not None)


def _percent(share: float | None) -> str:
    percent = 100 * (share or 0.0)
    return f"{percent:.1f} %" if percent >= 0.05 or percent == 0 else "<0.1 %"


def _value(estimate: Estimate) -> str:
    if estimate.value is None:
        return "none"
    if estimate.ci95 is None:
        return f"{estimate.value:.2f}"
    low, high = estimate.ci95
    return f"{estimate.value:.2f} [{low:.2f}, {high:.2f}]"


def _by_reason(skipped: dict[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for what, why in skipped.items():
        reasons.setdefault(why, []).append(what)
    return reasons
