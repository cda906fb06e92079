"""Scoring a file of answers: from the command's arguments to estimates, and what to tell about answers left over.

No model answers here and nothing of torch is imported. What is written is an evaluation directory as `run` writes it,
so that reports and comparisons read both alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sightline.config import Config
from sightline.evals.answer_files import Given, given, normal_key, read_answers
from sightline.evals.benchmark import (
    Adapting,
    AnyMetric,
    Benchmark,
    Confusing,
    CountingAll,
    InFolders,
    Keyed,
    Setting,
    Unlisted,
)
from sightline.evals.directory import ANSWERS, SAMPLES, read_result, relocated
from sightline.evals.judging.applying import NOBODY, Judging, judged, require_judged
from sightline.evals.matching import Tally, match
from sightline.evals.registry import get_benchmark
from sightline.evals.remarks import remarks_of
from sightline.evals.repeats import copy_samples, count_answers, is_copy, number_answers
from sightline.evals.scoring import all_metrics, estimate_scores, score_all, write_scores
from sightline.evals.statistics import RESAMPLES
from sightline.records.manifest import Stage
from sightline.records.rows import Answer, Estimate, Sample
from sightline.records.store import write_rows


class ScoreConfig(Config):
    """What decides the numbers, beside the files themselves."""

    benchmarks: tuple[str, ...]
    split: str | None = None
    limit: int | None = None
    resamples: int = RESAMPLES
    judge: str | None = None


@dataclass(frozen=True)
class Scored:
    """Every metric with its estimate, and sentences on answers left over and on how they were scored."""

    metrics: dict[str, AnyMetric]
    estimates: dict[str, Estimate]
    notes: tuple[str, ...]


def score_file(
    name: str,
    answers: Path,
    setting: Setting,
    *,
    judging: Judging = NOBODY,
    out: Path | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Scored:
    """Score a file of answers to one benchmark; with `out`, keep samples, answers, verdicts and scores there.

    `judging` says who grades, where the benchmark asks a judge.

    Raises:
        InputError: an unknown benchmark, a file that is missing or broken, answers to other questions, or of a judge.
    """
    benchmark = get_benchmark(name, setting)
    if isinstance(benchmark, Adapting):
        benchmark = benchmark.adapted(answers)
    require_judged(benchmark, judging)
    tally = Tally()
    if out is None:
        benchmark, _ = judged(benchmark, lambda: answered(benchmark, answers, Tally()), judging, None)
        estimates = estimate_scores(
            benchmark, score_all(benchmark, answered(benchmark, answers, tally)), resamples=resamples, seed=seed
        )
        return Scored(all_metrics(benchmark), estimates, (*tally.sentences(), *remarks_of(benchmark, estimates)))
    config = ScoreConfig(
        benchmarks=(name,),
        split=setting.split,
        limit=setting.limit,
        resamples=resamples,
        judge=judging.identity(benchmark),
    )
    inputs = {"answers": answers} | ({"synonyms": setting.synonyms} if setting.synonyms else {})
    next(answered(benchmark, answers, Tally()))  # so that a mistake does not claim the directory
    stage = Stage.open(out, "score", config, inputs, seed)
    folder, failures = out / benchmark.name, []
    if not stage.done:
        asked = (sample for sample, _ in answered(benchmark, answers, Tally()))
        write_rows(folder / SAMPLES, (relocated(sample, benchmark.folder, folder) for sample in asked))
        write_rows(folder / ANSWERS, (a for _, a in answered(benchmark, answers, tally) if a is not None))
        benchmark, failed = judged(benchmark, lambda: answered(benchmark, answers, Tally()), judging, folder)
        write_scores(benchmark, answered(benchmark, answers, Tally()), folder, resamples=resamples, seed=seed)
        counts = {"samples": tally.samples, "answers": tally.samples - tally.missing}
        dropped = {"repeated": tally.repeated, "unknown": tally.unknown}
        if failed:
            failures.append(f"{failed} calls of the judge failed; run the same command again to ask for them alone")
        else:
            stage.finish(counts=counts, dropped=dropped)
    result = read_result(out, benchmark.name)
    return Scored(dict(result.metrics), dict(result.estimates), (*tally.sentences(), *result.remarks, *failures))


def answered(benchmark: Benchmark, answers: Path, tally: Tally) -> Iterator[tuple[Sample, Answer | None]]:
    """The samples with the answers of a file; `tally` fills as they are read."""
    if isinstance(benchmark, Confusing):
        matched = _told_apart(benchmark, _given(benchmark, answers), tally)
    elif isinstance(benchmark, CountingAll) and benchmark.counts_every_answer:
        matched = _each_counted(benchmark, answers, tally)
    else:
        matched = match(benchmark.samples, _given(benchmark, answers), tally)
    if not (isinstance(benchmark, Unlisted) and benchmark.asks_what_is_answered):
        yield from matched
        return
    yield from ((sample, answer) for sample, answer in matched if answer is not None)
    tally.samples, tally.missing = tally.samples - tally.missing, 0


def _given(benchmark: Benchmark, answers: Path) -> Iterator[Given]:
    key_of = benchmark.answer_key if isinstance(benchmark, Keyed) else None
    if answers.is_dir() and isinstance(benchmark, InFolders):
        return given(benchmark.answer_rows(answers), key_of)
    return read_answers(answers, key_of)


def _each_counted(benchmark: Benchmark, answers: Path, tally: Tally) -> Iterator[tuple[Sample, Answer | None]]:
    """Every answer with a sample of its own; the file is read twice, to count the answers to each sample first."""
    counts = count_answers(_given(benchmark, answers))
    for sample, answer in match(
        lambda: copy_samples(benchmark.samples(), counts), number_answers(_given(benchmark, answers)), tally
    ):
        tally.further += answer is not None and is_copy(sample.id, counts)
        yield sample, answer


def _told_apart(benchmark: Confusing, rows: Iterator[Given], tally: Tally) -> Iterator[tuple[Sample, Answer | None]]:
    """Rows that may mean several samples answer the first, the second and so on, as they come."""
    taken: set[str] = set()

    def chosen(row: Given) -> Given:
        ids = benchmark.alike(row.key or "")
        if not ids:
            return row
        free = next((one for one in ids if one not in taken), ids[-1])
        taken.add(free)
        return row._replace(key=normal_key(free))

    for sample, answer in match(benchmark.samples, map(chosen, rows), tally):
        yield benchmark.confused(sample) if sample.id in taken else sample, answer
