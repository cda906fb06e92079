"""`sightline check`: what is wrong with a dataset of pairs, as one table, worst first.

The work is `sightline.pairs.check`; benchmarks' names are turned into samples here, since that room may not know them.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli.early import check_places
from sightline.config import MAX_SEED
from sightline.data.terminal import say

if TYPE_CHECKING:
    from sightline.data.progress import Progress
    from sightline.pairs.check.benchmark_files import Against
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
    from sightline.config import load_config
    from sightline.pairs.check.config import CheckConfig

    settings = load_config(CheckConfig, config, [*(overrides or ()), *(["allow_remote=true"] if allow_remote else ())])
    check_places(dataset=dataset)
    # what takes a second to import comes after what is answered at once
    from sightline.cli.check_table import print_report
    from sightline.data.progress import open_bars
    from sightline.pairs.check.fix import begin_fix, fix_dataset
    from sightline.pairs.check.run import FINDINGS, Plan, check_dataset, check_into

    with tempfile.TemporaryDirectory(prefix="sightline-check-") as temporary:
        folder = Path(temporary)
        benches = tuple(_against(name, data or folder / "data") for name in against or ())
        plan = Plan(dataset, settings, seed, model, benches, workers)
        with open_bars() as bars:

            def bar(label: str) -> "Progress":
                task = bars.add_task(label, total=None, note="")
                return lambda done, total: bars.update(task, completed=done, total=total)

            stages: list[Stage] = []

            def claim() -> None:
                if fix is not None:
                    stages.append(begin_fix(plan, fix))

            report = check_into(plan, folder, bar, claim) if out is None else check_dataset(plan, out, bar, claim)
            fixed = [fix_dataset(plan, (out or folder) / FINDINGS, stage, bar("copy")) for stage in stages]
    print_report(report)
    if out is not None:
        say(f"check: {out}")
    for copy in fixed:
        say(f"pairs: {fix} ({copy.counts['pairs']} kept, removed {copy.dropped or 'none'})")
    if strict and report.is_bad:
        raise typer.Exit(1)


def _against(name: str, folder: Path) -> "Against":
    """A benchmark by its name, or else by its path."""
    from sightline.errors import InputError
    from sightline.evals.benchmark import Setting
    from sightline.evals.registry import BENCHMARKS, get_benchmark
    from sightline.pairs.check.benchmark_files import against_path, against_samples

    if name in BENCHMARKS:
        benchmark = get_benchmark(name, Setting(folder))
        return against_samples(name, lambda: benchmark.folder, benchmark.samples)
    if not Path(name).exists():
        try:
            get_benchmark(name, Setting(folder))
        except InputError as error:
            raise InputError(f"{name!r} is no file or folder, and {error}") from error
    return against_path(Path(name))
