"""`sightline score`: a file of answers becomes a benchmark's official numbers, without the model that gave them.

The work is `sightline.evals.offline_scoring`; names of benchmarks are in `sightline.evals.registry`.
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
from sightline.evals.benchmark import BenchmarkSetting
from sightline.evals.judging.judge_client import JudgeConfig
from sightline.evals.judging.judged_scoring import Judging, check_anchors
from sightline.evals.offline_scoring import ScoredFile, score_file
from sightline.evals.registry import get_benchmark
from sightline.evals.statistics import RESAMPLES

app = typer.Typer()

#: Before the keys of a judge in `--set`.
JUDGE_KEY = "judge."


@app.command()
def score(  # noqa: PLR0913 - one parameter an option
    bench: Annotated[str, typer.Argument(help="The benchmark, such as pope.")],
    answers: Annotated[Path, typer.Option(help="JSONL, JSON or TSV: id and text in each row; or our answers.jsonl.")],
    data: Annotated[Path, typer.Option(help="Folder with the benchmark's official files.")],
    split: Annotated[str | None, typer.Option(help="One official part; all of them where it is left out.")] = None,
    synonyms: Annotated[Path | None, typer.Option(help="Official word list, in place of ours.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many pictures.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures, for judges that see them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to keep samples, answers and scores in.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object of all metrics.")] = False,
    judge: Annotated[Path | None, typer.Option(help="YAML of the judge: server, prompt, prices.")] = None,
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
    anchors: Annotated[bool, typer.Option(help="Have the judge grade twelve known answers too; needs --out.")] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Resamples behind the intervals.")] = RESAMPLES,
    answer_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Key of the model's answer, where the file's names do not tell.")
    ] = None,
    strip_reasoning: Annotated[
        bool, typer.Option("--strip-reasoning", help="Score what follows <think> tags, in place of the whole answer.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the resamples.")] = 0,
) -> None:
    """Score answers by a benchmark's official rule, with n, standard error and interval; needs no model.

    For example: sightline score pope --answers answers.jsonl --data POPE_DIR --split random
    """
    setting = BenchmarkSetting(data, images=images, limit=limit, split=split, synonyms=synonyms)
    judging = Judging(judge_config(judge, overrides), verdicts, tell)
    if anchors and (out is None or judging.config is None):
        raise InputError("--anchors needs a judge, and --out to keep its grades in.")
    source = AnswerSource(answers, answer_key, strip_reasoning)
    scored = score_file(bench, source, setting, judging=judging, out=out, resamples=resamples, seed=seed)
    if as_json:
        say(json.dumps({name: made.model_dump(mode="json") for name, made in scored.estimates.items()}, indent=2))
    else:
        print_scored(bench, scored)
    for note in scored.notes:
        say(note if note.startswith("warning: ") else f"note: {note}", err=True)
    if anchors and out is not None:
        tell(check_anchors(get_benchmark(bench, setting), judging, out / bench))
    if out is not None:
        say(f"evaluation: {out}", err=as_json)


def judge_config(path: Path | None, overrides: Sequence[str] | None) -> JudgeConfig | None:
    """The judge that a file and `judge.KEY=VALUE` settings describe; None where neither is given.

    Raises:
        InputError: an unknown or missing key, or a setting that is not the judge's.
    """
    own = [setting.removeprefix(JUDGE_KEY) for setting in overrides or ()]
    if stranger := next((setting for setting in overrides or () if not setting.startswith(JUDGE_KEY)), None):
        raise InputError(
            f"--set {stranger}: only keys of the judge are set here, such as {JUDGE_KEY}server.model=NAME."
        )
    return load_config(JudgeConfig, path, own) if path is not None or own else None


def tell(line: str) -> None:
    """Print what a judge costs and found where it disturbs no result."""
    say(line, err=True)


def print_scored(name: str, scored: ScoredFile) -> None:
    """Print every metric that has a value, with its interval; shares are in percent."""
    from rich.table import Table

    from sightline.report.formatting import interval_text, value_text

    table = Table("metric", "value", "std. error", "95 % interval", "n", "unscored", title=name)
    for key, made in scored.estimates.items():
        metric = scored.metrics[key]
        if made.value is None and made.n == 0:
            continue
        table.add_row(
            key,
            value_text(made.value, metric.unit),
            value_text(made.stderr, metric.unit),
            interval_text(made.ci95, metric.unit, signed=False),
            str(made.n),
            str(made.unscored),
        )
    Screen().print(table)
