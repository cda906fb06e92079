"""`sightline eval`, `eval-merge`, `probe` and `judge`: measure a model on benchmarks, its use of images, and a judge.

`sightline.evals.run` does the work; `sightline.evals.registry` lists the benchmarks.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field
from rich.table import Table

from sightline.cli.early import (
    Concurrency,
    EndpointModel,
    EndpointSets,
    EndpointURL,
    KeyVariable,
    Overrides,
    check_places,
    endpoint_config,
)
from sightline.cli.model_options import ELSEWHERE, opens_model
from sightline.config import MAX_SEED, Config, load_config
from sightline.data.terminal import Screen, say
from sightline.errors import InputError
from sightline.evals import run
from sightline.evals.directory import BenchmarkResult, read_evaluation
from sightline.evals.judging.judge_client import EvalJudgeConfig
from sightline.evals.run import Files
from sightline.evals.shards import merge_evaluations
from sightline.models.processes import is_first_launched
from sightline.models.spec import ModelSpec
from sightline.report.formatting import interval_text, value_text

eval_app = typer.Typer()


class EvalSettings(run.EvalConfig):
    """The keys of `--config` and `--set`: those that affect the numbers, and under `runtime` those for speed."""

    runtime: run.EvalRuntime = Field(
        default=run.EvalRuntime(), description="settings that affect speed and memory, not results beyond rounding"
    )


@eval_app.command()
@opens_model(required=False)
def evaluate(  # noqa: PLR0913 - one parameter an option
    out: Annotated[Path, typer.Option(help="Directory to write: answers, scores and estimates of each benchmark.")],
    model: ModelSpec | None = None,
    bench: Annotated[str | None, typer.Option(help="Benchmarks, comma-separated; a report quotes the first.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of official files, and of the lab's pictures (default: OUT/data).")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the official pictures, if outside --data.")] = None,
    synonyms: Annotated[
        Path | None, typer.Option(help="Official word list to use instead of the built-in one.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N pictures of each benchmark.")] = None,
    split: Annotated[str | None, typer.Option(help="Official split (default: all).")] = None,
    shard: Annotated[str | None, typer.Option(help="INDEX/COUNT: the part for this process; see `eval-merge`.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Answers generated per batch.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of the evaluation config.")] = None,
    overrides: Overrides = None,
    judge: Annotated[Path | None, typer.Option(help="YAML file of the judge for open answers.")] = None,
    strip_reasoning: Annotated[
        bool, typer.Option("--strip-reasoning", help="Score only the text after <think> tags; answers are saved whole.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Seed of the bootstrap intervals; answers are greedy.")
    ] = 0,
    endpoint: EndpointURL = None,
    endpoint_model: EndpointModel = None,
    api_key_env: KeyVariable = None,
    concurrency: Concurrency = None,
    endpoint_sets: EndpointSets = None,
    endpoint_adapter: Annotated[
        Path | None, typer.Option(help="PEFT adapter that the server loads for the time of the run (vLLM).")
    ] = None,
) -> None:
    """Evaluate a model, or the model of a server, on benchmarks; an interrupted run resumes.

    For example: sightline eval --model DIR --adapter TRAIN_DIR/adapter --bench lab-chair,lab-vqa --out DIR
    """
    server = endpoint_config(endpoint, endpoint_model, api_key_env, concurrency, endpoint_sets)
    evaluated = server if model is None else model
    if evaluated is None or (server is not None and model is not None):
        raise InputError("give either --model or --endpoint")
    if endpoint_adapter is not None and server is None:
        raise InputError("--endpoint-adapter is for a server; give --adapter with a model")
    given = [*(overrides or ())]
    if bench is not None:
        given.append(f"benchmarks=[{bench}]")
    options = {"limit": limit, "split": split, "shard": shard, "runtime.batch_size": batch_size}
    given += ["strip_reasoning=true"] if strip_reasoning else []
    given += [f"{key}={value}" for key, value in options.items() if value is not None]
    settings = load_config(EvalSettings, config, given, elsewhere=ELSEWHERE)
    eval_config = run.EvalConfig(**settings.model_dump(exclude={"runtime"}))
    if judge is not None:
        eval_config = eval_config.model_copy(update={"judge": load_config(EvalJudgeConfig, judge)})
    check_places(adapter=endpoint_adapter, images=images, synonyms=synonyms)
    files = run.Files(data, images, synonyms)
    run.evaluate(
        evaluated, out, eval_config, adapter=endpoint_adapter, files=files, seed=seed, runtime=settings.runtime
    )
    if not is_first_launched():
        return
    results = read_evaluation(out, eval_config.benchmarks)
    print_estimates(results)
    for name, remark in ((name, remark) for name, result in results.items() for remark in result.remarks):
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


eval_merge_app = typer.Typer()


@eval_merge_app.command()
def merge(
    parts: Annotated[list[Path], typer.Argument(help="Output directories of all `sightline eval --shard` runs.")],
    out: Annotated[Path, typer.Option(help="Directory to write: the merged evaluation.")],
    data: Annotated[Path | None, typer.Option(help="Folder of official files, as given to `eval`.")] = None,
    synonyms: Annotated[Path | None, typer.Option(help="Official word list, as given to `eval`.")] = None,
) -> None:
    """Merge the shards of an evaluation and score all answers.

    For example: sightline eval-merge EVAL_0 EVAL_1 --data DIR --out EVAL
    """
    manifest = merge_evaluations(parts, out, Files(data, None, synonyms))
    say(f"evaluation: {out} ({sum(manifest.counts.values())} answers from {len(parts)} shards)")


probe_app = typer.Typer()


@probe_app.command()
@opens_model()
def probe(
    model: ModelSpec,
    pairs: Annotated[Path, typer.Option(help="Directory of preference pairs.")],
    count: Annotated[int, typer.Option(min=1, help="Number of pairs with pictures to use.")] = 16,
) -> None:
    """Check that a model uses its images: score answers with their pictures and with gray ones.

    Exits with code 2 if the pictures make no difference. Training runs the same check on two pairs.
    """
    from sightline.data.preference_dataset import read_pairs
    from sightline.models.image_use import image_use, require_image_use
    from sightline.models.opening import open_model
    from sightline.train.pair_filter import resolve_images
    from sightline.train.scoring import make_score_request

    shown = (make_score_request(resolve_images(pair, pairs)) for pair in read_pairs(pairs) if pair.images)
    items = list(islice(shown, count))
    vlm = open_model(model)
    found = image_use(vlm, items)
    if found is None:
        raise InputError(f"{pairs} holds no pair with a picture; choose pairs with pictures")
    say(
        f"gray pictures change the log-probs of {found.answers} answers by {found.mean:.3g} nats on average, "
        f"{found.most:.3g} at most"
    )
    require_image_use(vlm, items)


judge_app = typer.Typer()


@judge_app.command()
@opens_model(required=False, help="Model for judges that use one: a directory, a hub id, or lab.")
def judge(
    pairs: Annotated[Path, typer.Option(help="Directory of preference pairs.")],
    model: ModelSpec | None = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N pairs.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with the judge's config under `judge`.")] = None,
    overrides: Overrides = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the bootstrap interval.")] = 0,
) -> None:
    """Measure how often a judge prefers the chosen answer of pairs.

    For example: sightline judge --pairs DIR --set judge.name=reward --set judge.model=DIR
    --set judge.adapter=TRAIN_DIR/adapter
    """
    from sightline.data.preference_dataset import read_pairs
    from sightline.data.terminal import one_bar
    from sightline.judges.accuracy import measure_accuracy
    from sightline.judges.length_control import JudgeConfig
    from sightline.models.context import RunContext
    from sightline.models.opening import open_model
    from sightline.models.processes import join_workers

    class JudgeSettings(Config):
        judge: JudgeConfig

    settings = load_config(JudgeSettings, config, overrides or (), elsewhere=ELSEWHERE)
    rows = list(islice(read_pairs(pairs), limit))
    folder = pairs.absolute()
    done = 0
    with join_workers() as processes, one_bar("pairs", shown=processes.is_first) as progress:
        policy = processes.on_all(lambda: None if model is None else open_model(model))
        opened = processes.on_all(lambda: settings.judge.open(RunContext(folder, folder, seed, policy)))

        def advance(count: int) -> None:
            nonlocal done
            done = min(len(rows), done + count * processes.count)  # the others are about as far
            progress(done, len(rows))

        found = measure_accuracy(opened, rows, folder, advance, seed=seed, processes=processes)
    if not processes.is_first:
        return
    share = found.share
    interval = "" if share.ci95 is None else f" (95 % interval {100 * share.ci95[0]:.1f} to {100 * share.ci95[1]:.1f})"
    say(
        f"the judge prefers the chosen answer in {100 * (share.value or 0.0):.1f} % of {share.n} pairs{interval}; "
        f"{found.ties} ties, {share.unscored} unscored"
    )
