"""`sightline eval`: a model answers benchmarks, its answers become scores and estimates.

The work is `sightline.evals.run`; names of benchmarks are in `sightline.evals.registry`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sightline.cli.early import check_places
from sightline.config import MAX_SEED, load_config
from sightline.data.terminal import Screen, say
from sightline.evals import run
from sightline.evals.directory import BenchmarkResult, read_evaluation
from sightline.evals.judging.config import JudgeConfig
from sightline.evals.run import is_hub_id
from sightline.study.report.formatting import interval_text, value_text

app = typer.Typer()


class EvalSettings(run.EvalConfig):
    """What `--config` and `--set` may say: what decides the numbers, and under `runtime` what decides the speed."""

    runtime: run.EvalRuntime = run.EvalRuntime()


@app.command()
def evaluate(  # noqa: PLR0913 - one parameter an option
    model: Annotated[str, typer.Option(help="Model directory, or a hub id such as owner/name.")],
    out: Annotated[Path, typer.Option(help="Directory to write: answers, scores and estimates of each benchmark.")],
    bench: Annotated[
        str | None, typer.Option(help="Benchmarks, separated by commas; a report quotes the first.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="PEFT adapter, such as TRAIN_DIR/adapter.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of official files; lab pictures go there [OUT/data].")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the official pictures, if not in --data.")] = None,
    synonyms: Annotated[Path | None, typer.Option(help="Official word list, in place of ours.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many pictures of each.")] = None,
    split: Annotated[str | None, typer.Option(help="One official part; all of them where it is left out.")] = None,
    shard: Annotated[str | None, typer.Option(help="INDEX/COUNT: this process's part; see `eval-merge`.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Answers generated together.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of the evaluation config.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
    judge: Annotated[Path | None, typer.Option(help="YAML of the judge that grades open answers.")] = None,
    strip_reasoning: Annotated[
        bool, typer.Option("--strip-reasoning", help="Score what follows <think> tags; answers are kept whole.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of the resamples behind the intervals; answers are greedy.")
    ] = 0,
) -> None:
    """Measure a model on benchmarks; started again, it goes on where it was stopped.

    For example: sightline eval --model DIR --adapter TRAIN_DIR/adapter --bench lab-chair,lab-vqa --out DIR
    """
    given = [*(overrides or ())]
    if bench is not None:
        given.append(f"benchmarks=[{bench}]")
    options = {"limit": limit, "split": split, "shard": shard, "runtime.batch_size": batch_size}
    given += ["strip_reasoning=true"] if strip_reasoning else []
    given += [f"{key}={value}" for key, value in options.items() if value is not None]
    settings = load_config(EvalSettings, config, given)
    asked = run.EvalConfig(**settings.model_dump(exclude={"runtime"}))
    if judge is not None:
        asked = asked.model_copy(update={"judge": load_config(JudgeConfig, judge)})
    check_places(adapter=adapter, images=images, synonyms=synonyms, model=None if is_hub_id(model) else Path(model))
    files = run.Files(data, images, synonyms)
    run.evaluate(model, out, asked, adapter=adapter, files=files, seed=seed, runtime=settings.runtime)
    made = read_evaluation(out, asked.benchmarks)
    print_estimates(made)
    for name, remark in ((name, remark) for name, result in made.items() for remark in result.remarks):
        say(f"note: {remark if remark.startswith(name) else f'{name}: {remark}'}")
    say(f"evaluation: {out}")


def print_estimates(evaluation: Mapping[str, BenchmarkResult]) -> None:
    """Print every metric of every benchmark with its interval; shares are in percent."""
    table = Table("benchmark", "metric", "value", "95 % interval", "n")
    for result in evaluation.values():
        for name, estimate in result.estimates.items():
            unit = result.metrics[name].unit
            value, interval = value_text(estimate.value, unit), interval_text(estimate.ci95, unit, signed=False)
            table.add_row(result.name, name, value, interval, str(estimate.n))
        table.add_section()
    Screen().print(table)
