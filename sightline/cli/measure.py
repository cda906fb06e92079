"""`sightline eval`: a model answers benchmarks, its answers become scores and estimates.

The work is `sightline.evals.run`; names of benchmarks are in `sightline.evals.registry`.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sightline.cli.early import check_places
from sightline.config import MAX_SEED, load_config
from sightline.data.terminal import Screen, say
from sightline.evals import run
from sightline.evals.directory import BenchmarkResult, read_evaluation
from sightline.evals.judging.judge_client import JudgeConfig
from sightline.evals.run import Files, is_hub_id
from sightline.evals.shards import merge_evaluations
from sightline.report.formatting import interval_text, value_text

eval_app = typer.Typer()


class EvalSettings(run.EvalConfig):
    """What `--config` and `--set` may say: what decides the numbers, and under `runtime` what decides the speed."""

    runtime: run.EvalRuntime = run.EvalRuntime()


@eval_app.command()
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


eval_merge_app = typer.Typer()


@eval_merge_app.command()
def merge(
    parts: Annotated[list[Path], typer.Argument(help="Output directories of `sightline eval --shard`, all of them.")],
    out: Annotated[Path, typer.Option(help="Directory to write: an evaluation as if it had not been divided.")],
    data: Annotated[Path | None, typer.Option(help="Folder of official files, as given to `eval`.")] = None,
    synonyms: Annotated[Path | None, typer.Option(help="Official word list, as given to `eval`.")] = None,
) -> None:
    """Bring the shards of an evaluation together and score all answers.

    For example: sightline eval-merge EVAL_0 EVAL_1 --data DIR --out EVAL
    """
    manifest = merge_evaluations(parts, out, Files(data, None, synonyms))
    say(f"evaluation: {out} ({sum(manifest.counts.values())} answers of {len(parts)} shards)")


probe_app = typer.Typer()


@probe_app.command()
def probe(
    model: Annotated[Path, typer.Option(help="Directory of the model, with its processor.")],
    pairs: Annotated[Path, typer.Option(help="Directory of preference pairs.")],
    count: Annotated[int, typer.Option(min=1, help="Pairs with pictures to ask.")] = 16,
) -> None:
    """Score answers with their pictures and with gray ones; a model that ignores its pictures ends with code 2.

    Training asks the same of two pairs before it starts.
    """
    from sightline.data.preference_dataset import read_pairs
    from sightline.errors import InputError
    from sightline.models.image_use import image_use, require_image_use
    from sightline.models.loading import load_vlm
    from sightline.train.pair_filter import resolve_images
    from sightline.train.scoring import to_scored

    shown = (to_scored(resolve_images(pair, pairs)) for pair in read_pairs(pairs) if pair.images)
    items = list(islice(shown, count))
    vlm = load_vlm(model)
    found = image_use(vlm, items)
    if found is None:
        raise InputError(f"{pairs} holds no pair with a picture; name pairs that have some")
    say(
        f"gray pictures move the log-probs of {found.answers} answers by {found.mean:.3g} nats (most: {found.most:.3g})"
    )
    require_image_use(vlm, items)


judge_app = typer.Typer()


@judge_app.command()
def judge(
    pairs: Annotated[Path, typer.Option(help="Directory of preference pairs.")],
    model: Annotated[Path | None, typer.Option(help="Directory of the model, for judges that ask it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many pairs.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with the judge's config under judge.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the resamples behind the interval.")] = 0,
) -> None:
    """Measure a judge on pairs whose better answer is known.

    For example: sightline judge --pairs DIR --set judge.name=reward --set judge.model=DIR
    --set judge.adapter=TRAIN_DIR/adapter
    """
    from itertools import islice

    from sightline.config import Config, load_config
    from sightline.data.preference_dataset import read_pairs
    from sightline.data.terminal import one_bar
    from sightline.judges.accuracy import measure_accuracy
    from sightline.judges.length_control import JudgeConfig
    from sightline.models.context import RunContext
    from sightline.models.loading import load_vlm

    class JudgeSettings(Config):
        judge: JudgeConfig

    settings = load_config(JudgeSettings, config, overrides or ())
    rows = list(islice(read_pairs(pairs), limit))
    folder = pairs.absolute()
    opened = settings.judge.open(RunContext(folder, folder, seed, None if model is None else load_vlm(model)))
    done = 0
    with one_bar("pairs") as progress:

        def seen(count: int) -> None:
            nonlocal done
            done += count
            progress(done, len(rows))

        found = measure_accuracy(opened, rows, folder, seen, seed=seed)
    share = found.share
    interval = "" if share.ci95 is None else f" (95 % interval {100 * share.ci95[0]:.1f} to {100 * share.ci95[1]:.1f})"
    say(
        f"the chosen answer is preferred in {100 * (share.value or 0.0):.1f} % of {share.n} pairs{interval}; "
        f"{found.ties} ties, {share.unscored} unscored"
    )
