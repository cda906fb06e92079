"""`sightline score`: score a file of answers by a benchmark's official rule, without the model.

`sightline.evals.offline_scoring` does the work; `sightline.evals.registry` lists the benchmarks.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sightline.config import MAX_SEED, load_config
from sightline.data.terminal import Screen, say
from sightline.errors import InputError
from sightline.evals.answer_reader import AnswerSource
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.judging.judge_client import EvalJudgeConfig
from sightline.evals.judging.judged_scoring import Judging, check_anchors
from sightline.evals.offline_scoring import ScoredFile, score_file
from sightline.evals.registry import get_benchmark
from sightline.evals.statistics import RESAMPLES

app = typer.Typer()

#: Prefix of a judge's keys in `--set`.
JUDGE_KEY = "judge."


@app.command()
def score(  # noqa: PLR0913 - one parameter an option
    bench: Annotated[str, typer.Argument(help="Benchmark, such as pope.")],
    answers: Annotated[
        Path, typer.Option(help="JSONL, JSON or TSV with id and text in each row, or an answers.jsonl of `eval`.")
    ],
    data: Annotated[Path, typer.Option(help="Folder with the benchmark's official files.")],
    split: Annotated[str | None, typer.Option(help="Official split (default: all).")] = None,
    synonyms: Annotated[
        Path | None, typer.Option(help="Official word list to use instead of the built-in one.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N pictures.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures, for judges that use them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to write: samples, answers and scores.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object of all metrics.")] = False,
    judge: Annotated[Path | None, typer.Option(help="YAML file of the judge: server, prompt, prices.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="judge.KEY=VALUE", help="Set one key of the judge; may be repeated."),
    ] = None,
    verdicts: Annotated[
        list[Path] | None,
        typer.Option(
            help="Earlier verdicts of a judge: verdicts.jsonl, files of the official script, or their folder; may be"
            " repeated."
        ),
    ] = None,
    anchors: Annotated[bool, typer.Option(help="Also have the judge grade twelve known answers; needs --out.")] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap resamples.")] = RESAMPLES,
    answer_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Key of the model's answer, if it cannot be detected.")
    ] = None,
    strip_reasoning: Annotated[
        bool, typer.Option("--strip-reasoning", help="Score only the text after <think> tags.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Score answers by a benchmark's official rule, with n, standard error and interval. Needs no model.

    For example: sightline score pope --answers answers.jsonl --data POPE_DIR --split random
    """
    setting = BenchmarkOptions(data, images=images, limit=limit, split=split, synonyms=synonyms)
    judging = Judging(judge_config(judge, overrides), verdicts, log)
    if anchors and (out is None or judging.config is None):
        raise InputError("--anchors needs a judge, and --out to save its grades")
    source = AnswerSource(answers, answer_key, strip_reasoning)
    scored = score_file(bench, source, setting, judging=judging, out=out, resamples=resamples, seed=seed)
    if as_json:
        say(
            json.dumps(
                {name: estimate.model_dump(mode="json") for name, estimate in scored.estimates.items()}, indent=2
            )
        )
    else:
        print_scored(bench, scored)
    for note in scored.notes:
        say(note if note.startswith("warning: ") else f"note: {note}", err=True)
    if anchors and out is not None:
        log(check_anchors(get_benchmark(bench, setting), judging, out / bench))
    if out is not None:
        say(f"evaluation: {out}", err=as_json)


def judge_config(path: Path | None, overrides: Sequence[str] | None) -> EvalJudgeConfig | None:
    """The judge config of a file and `judge.KEY=VALUE` settings; None if neither is given.

    Raises:
        InputError: a key is unknown or missing, or a setting is not the judge's.
    """
    own = [setting.removeprefix(JUDGE_KEY) for setting in overrides or ()]
    if stranger := next((setting for setting in overrides or () if not setting.startswith(JUDGE_KEY)), None):
        raise InputError(
            f"--set {stranger}: only keys of the judge can be set here, such as {JUDGE_KEY}server.model=NAME"
        )
    return load_config(EvalJudgeConfig, path, own) if path is not None or own else None


def log(line: str) -> None:
    """Print the judge's messages to stderr, apart from the results."""
    say(line, err=True)


def print_scored(name: str, scored: ScoredFile) -> None:
    """Print every metric with a value, with its interval; shares are in percent."""
    from rich.table import Table

    from sightline.report.formatting import interval_text, value_text

    table = Table("metric", "value", "std. error", "95 % interval", "n", "unscored", title=name)
    for key, estimate in scored.estimates.items():
        metric = scored.metrics[key]
        if estimate.value is None and estimate.n == 0:
            continue
        table.add_row(
            key,
            value_text(estimate.value, metric.unit),
            value_text(estimate.stderr, metric.unit),
            interval_text(estimate.ci95, metric.unit, signed=False),
            str(estimate.n),
            str(estimate.unscored),
        )
    Screen().print(table)
