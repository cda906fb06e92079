"""`sightline check`: what is wrong with a dataset of pairs, as one table, worst first.

The work is `sightline.check`; benchmarks' names are turned into samples here, since that room may not know them.
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
from sightline.cli.early import check_places
from sightline.config import MAX_SEED
from sightline.data.terminal import Screen, escape_code, say, visible
from sightline.records import Estimate

if TYPE_CHECKING:
    from sightline.check.overlap import BenchmarkSource
    from sightline.data.terminal import Progress
    from sightline.records import Stage

app = typer.Typer()


@app.command()
def check(  # noqa: PLR0913 - one parameter an option
    dataset: Annotated[Path, typer.Argument(help="Directory of pairs: pairs.jsonl, or Parquet files in data/.")],
    model: Annotated[Path | None, typer.Option(help="Directory of the model that is to be trained.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="BENCH", help="Benchmark, or a file or folder of pictures or questions; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to write: check.json and findings.jsonl.")] = None,
    fix: Annotated[Path | None, typer.Option(help="Directory to write: a copy without the bad rows.")] = None,
    data: Annotated[Path | None, typer.Option(help="Where benchmarks find or put their pictures.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that open images.")] = 1,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Note addresses of images; none is opened.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with code 1 if anything is bad.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file of the check's config.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of what is drawn.")] = 0,
) -> None:
    """Look at every row and image of a dataset of pairs, and say what would spoil training or its measurement.

    For example: sightline check PAIRS_DIR --model DIR --against lab-vqa --against photos/ --fix CLEAN_DIR
    """
    from sightline.check.findings import CheckConfig
    from sightline.config import load_config

    settings = load_config(CheckConfig, config, [*(overrides or ()), *(["allow_remote=true"] if allow_remote else ())])
    check_places(dataset=dataset)
    # what takes a second to import comes after what is answered at once
    from sightline.check.fix import claim_fix, fix_dataset
    from sightline.check.run import FINDINGS, CheckPlan, check_dataset, check_into
    from sightline.data.terminal import open_bars

    with tempfile.TemporaryDirectory(prefix="sightline-check-") as temporary:
        folder = Path(temporary)
        benches = tuple(_against(name, data or folder / "data") for name in against or ())
        plan = CheckPlan(dataset, settings, seed, model, benches, workers)
        with open_bars() as bars:

            def bar(label: str) -> "Progress":
                task = bars.add_task(label, total=None, note="")
                return lambda done, total: bars.update(task, completed=done, total=total)

            stages: list[Stage] = []

            def claim() -> None:
                if fix is not None:
                    stages.append(claim_fix(plan, fix))

            report = check_into(plan, folder, bar, claim) if out is None else check_dataset(plan, out, bar, claim)
            fixed = [fix_dataset(plan, (out or folder) / FINDINGS, stage, bar("copy")) for stage in stages]
    print_report(report)
    if out is not None:
        say(f"check: {out}")
    for copy in fixed:
        say(f"pairs: {fix} ({copy.counts['pairs']} kept, removed {copy.dropped or 'none'})")
    if strict and report.is_bad:
        raise typer.Exit(1)


def _against(name: str, folder: Path) -> "BenchmarkSource":
    """A benchmark by its name, or else by its path."""
    from sightline.check.overlap import source_from_path, source_from_samples
    from sightline.errors import InputError
    from sightline.evals.benchmark import BenchmarkSetting
    from sightline.evals.registry import BENCHMARKS, get_benchmark

    if name in BENCHMARKS:
        benchmark = get_benchmark(name, BenchmarkSetting(folder))
        return source_from_samples(name, lambda: benchmark.folder, benchmark.samples)
    if not Path(name).exists():
        try:
            get_benchmark(name, BenchmarkSetting(folder))
        except InputError as error:
            raise InputError(f"{name!r} is no file or folder, and {error}") from error
    return source_from_path(Path(name))


_ORDER = {"bad": 0, "look": 1, "ok": 2}
_STYLES = {"bad": "bold red", "look": "yellow", "ok": "green"}
_MOST, _WHOLE = 24, 10_000  # characters of an id, and of a sentence
_LEFTWARD = ("R", "AL", "AN")  # letters that run leftward, which would turn the cells of a row around


def print_report(report: Report, console: Screen | None = None) -> None:
    """Print what was found, what was measured, and what was not looked at."""
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
    for label, measured in (("Nothing found", False), ("No give-away", True)):
        titles = [line.title for line in quiet if (line.value is not None) is measured]
        if titles:
            console.print(Text(f"{label}: {plain('; '.join(titles), _WHOLE)}."))
    for what, why in _by_reason(report.skipped).items():
        console.print(Text(f"Not looked at, {what}: {plain('; '.join(why), _WHOLE)}."))
    if any(line.within is not None for line in lines):
        console.print(Text("An AUC of 0.5 tells chosen from rejected answers as a coin does, 1 (or 0) without fail."))


def _is_shown(line: CheckLine) -> bool:
    """Whatever was found, and of give-aways that are none, the two that are always asked for."""
    if line.check.startswith(GIVE_AWAY) and line.verdict == "ok":
        return line.check.removeprefix(GIVE_AWAY) in ("words", "bag of words")
    return bool(line.verdict != "ok" or line.value is not None or line.rows)


def _cells(line: CheckLine) -> tuple[str, str]:
    """What was found, and more of it."""
    if line.value is None:
        return f"{line.rows} ({_percent(line.share)})", ", ".join(plain(name) for name in line.examples)
    unscored = f", {line.value.unscored} unscored" if line.value.unscored else ""
    if line.within is None:
        return _value(line.value), f"n {line.n}{unscored}"
    return f"AUC {_value(line.value)}", f"{_value(line.within)}, n {line.n}{unscored}"


def plain(text: str, most: int = _MOST) -> str:
    """The text in one line, what would not show as itself written as its code, cut to `most` characters."""
    shown = "".join(_shown(character) for character in text[: most + 1])
    return shown if len(text) <= most and len(shown) <= most else f"{shown[: most - 1]}\u2026"


def _shown(character: str) -> str:
    is_leftward = unicodedata.bidirectional(character) in _LEFTWARD
    return escape_code(character) if is_leftward else visible(character, kept="")


def _summary(report: Report) -> str:
    return (
        f"{report.rows} rows, {report.readable} of them readable, {report.images} images ({report.distinct_images} "
        f"different that open); --fix would remove {report.removable} rows."
    )


def _size(line: CheckLine) -> float:
    """How large a finding is, to sort by: a share, or how far an AUC is from a coin's."""
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
