"""Scoring of an answer file: from the command's arguments to estimates, with notes on answers that were dropped.

No model runs and torch is not imported. The output is an evaluation directory in the format of `run`, so that reports
and comparisons read both in the same way.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from sightline.config import SparseConfig
from sightline.evals.answer_alignment import AlignmentCounts, Corrections, align_answers, find_corrections
from sightline.evals.answer_keys import question_in
from sightline.evals.answer_reader import AnswerRow, AnswerSource, file_rows, normal_key, parse_answers
from sightline.evals.answer_stats import collect_caveats
from sightline.evals.benchmark import (
    AdaptsToAnswers,
    AnyMetric,
    Benchmark,
    BenchmarkOptions,
    CountsEveryAnswer,
    HasAmbiguousIds,
    HasOpenList,
    MapsAnswerIds,
    ReadsFolders,
    RefusesRepeats,
    RenumbersAnswers,
)
from sightline.evals.directory import ANSWERS, SAMPLES, read_result, relocate_images
from sightline.evals.judging.judged_scoring import NO_JUDGE, Judging, apply_judge, check_judging
from sightline.evals.questions import ReasoningTally
from sightline.evals.registry import get_benchmark
from sightline.evals.repeats import copy_samples, count_answers, is_copy, number_answers, refuse_repeats
from sightline.evals.scoring import all_metrics, answers_as_scored, estimate_scores, score_all, write_scores
from sightline.evals.statistics import RESAMPLES
from sightline.records.manifest import Stage
from sightline.records.rows import Answer, Estimate, Sample
from sightline.records.store import write_rows


class ScoreConfig(SparseConfig):
    """Settings that, with the files, determine the metrics."""

    SPARSE = frozenset({"answer_key", "strip_reasoning"})

    benchmarks: tuple[str, ...] = Field(description="name of the benchmark, as a list of one")
    split: str | None = Field(default=None, description="the official part to score; null: all parts")
    limit: int | None = Field(default=None, description="score the first so many images; null: all")
    resamples: int = Field(default=RESAMPLES, description="resamples of the cluster bootstrap behind each interval")
    judge: str | None = Field(default=None, description="identity of the judge; null without one")
    answer_key: str | None = Field(
        default=None, description="key of the answers in the file; null: found among the usual names"
    )
    strip_reasoning: bool = Field(default=False, description="score the text after a model's reasoning tags")


@dataclass(frozen=True)
class ScoredFile:
    """Every metric with its estimate, and notes on dropped answers and on how the answers were scored."""

    metrics: dict[str, AnyMetric]
    estimates: dict[str, Estimate]
    notes: tuple[str, ...]


def score_file(
    name: str,
    answers: Path | AnswerSource,
    options: BenchmarkOptions,
    *,
    judging: Judging = NO_JUDGE,
    out: Path | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ScoredFile:
    """Score a file of answers to one benchmark; with `out`, write samples, answers, verdicts and scores there.

    `judging` is the judge of benchmarks that need one.

    Raises:
        InputError: the benchmark is unknown, a file is broken, answers are to other questions, or the judge fails.
    """
    source = answers if isinstance(answers, AnswerSource) else AnswerSource(answers)
    benchmark = get_benchmark(name, options)
    if isinstance(benchmark, AdaptsToAnswers):
        benchmark = benchmark.adapt_to(source.path)
    check_judging(benchmark, judging)
    file = AnsweredFile(benchmark, source)
    if out is not None:
        return _score_to_directory(file, options, judging, out, resamples, seed)
    tally, reasoning = AlignmentCounts(), ReasoningTally(source.strip_reasoning)
    graded, _ = apply_judge(file.benchmark, file.for_judge, judging, None)
    scores = score_all(graded, file.read(tally), reasoning)
    estimates = estimate_scores(graded, scores, resamples=resamples, seed=seed, reasoning=reasoning)
    notes = (*tally.notes(), *collect_caveats(graded, estimates, reasoning))
    return ScoredFile(all_metrics(graded, reasoning), estimates, notes)


def _score_to_directory(
    file: "AnsweredFile", options: BenchmarkOptions, judging: Judging, out: Path, resamples: int, seed: int
) -> ScoredFile:
    """Score an answer file into an evaluation directory, or read the directory if it is complete."""
    benchmark, source, tally = file.benchmark, file.source, AlignmentCounts()
    config = ScoreConfig(
        benchmarks=(benchmark.name,),
        split=options.split,
        limit=options.limit,
        resamples=resamples,
        judge=judging.identity(benchmark),
        answer_key=source.key,
        strip_reasoning=source.strip_reasoning,
    )
    inputs = {"answers": source.path} | ({"synonyms": options.synonyms} if options.synonyms else {})
    next(file.read(AlignmentCounts()))  # so that an invalid file does not claim the directory
    stage = Stage.open(out, "score", config, inputs, seed)
    folder, failures = out / benchmark.name, []
    if not stage.done:
        listed = (sample for sample, _ in file.read(AlignmentCounts()))
        write_rows(folder / SAMPLES, (relocate_images(sample, benchmark.folder, folder) for sample in listed))
        write_rows(folder / ANSWERS, (a for _, a in file.read(tally) if a is not None))
        graded, failed = apply_judge(benchmark, file.for_judge, judging, folder)
        reasoning = ReasoningTally(source.strip_reasoning)
        write_scores(graded, file.read(AlignmentCounts()), folder, resamples=resamples, seed=seed, reasoning=reasoning)
        counts = {"samples": tally.samples, "answers": tally.samples - tally.missing}
        dropped = {"repeated": tally.repeated, "unknown": tally.unknown}
        if tally.other_question:
            dropped["other question"] = tally.other_question
        if failed:
            failures.append(f"{failed} judge calls failed; run the same command again to retry only these")
        else:
            stage.finish(counts=counts, dropped=dropped, warnings=tally.warnings())
    result = read_result(out, benchmark.name)
    return ScoredFile(dict(result.metrics), dict(result.estimates), (*tally.notes(), *result.remarks, *failures))


class AnsweredFile:
    """An answer file with its benchmark; every call reads the file again, in the order of the samples."""

    def __init__(self, benchmark: Benchmark, source: AnswerSource) -> None:
        self.source = source
        self._has_questions = False
        rows = self._survey(benchmark)
        if isinstance(benchmark, RenumbersAnswers):
            benchmark = benchmark.with_numbering(rows)
        self.benchmark = benchmark
        self._open = isinstance(benchmark, HasOpenList) and benchmark.scores_only_answered
        if isinstance(benchmark, RefusesRepeats) and benchmark.refuses_repeats:
            refuse_repeats(self._rows(set()))
        counts_all = isinstance(benchmark, CountsEveryAnswer) and benchmark.counts_every_answer
        self._counts = count_answers(self._rows(set())) if counts_all else Counter[str]()
        self._corrections = Corrections()
        if not self._open and (self._has_questions or any(self._has_questions for _ in rows)):
            self._corrections = find_corrections(benchmark.samples, lambda: self._rows(set()))

    def read(self, tally: AlignmentCounts) -> Iterator[tuple[Sample, Answer | None]]:
        """The samples with the answers of the file; `tally` is filled as they are read."""
        taken: set[str] = set()
        rows = self._corrections.apply(self._rows(taken), tally)
        for sample, answer in align_answers(self._samples, number_answers(rows) if self._counts else rows, tally):
            if answer is None and self._open:
                continue
            tally.additional += answer is not None and is_copy(sample.id, self._counts)
            if isinstance(self.benchmark, HasAmbiguousIds) and sample.id in taken:
                yield self.benchmark.as_ambiguous(sample), answer
            else:
                yield sample, answer
        if self._open:
            tally.samples, tally.missing = tally.samples - tally.missing, 0

    def _samples(self) -> Iterator[Sample]:
        """The samples; where every answer counts, a sample is repeated for each of its answers."""
        return copy_samples(self.benchmark.samples(), self._counts) if self._counts else self.benchmark.samples()

    def for_judge(self) -> Iterator[tuple[Sample, Answer | None]]:
        """The samples with their answers in the form that a judge reads."""
        return answers_as_scored(self.read(AlignmentCounts()), self.source.strip_reasoning)

    def _survey(self, benchmark: Benchmark) -> Iterator[dict[str, Any]]:
        """The raw rows of the file; notes whether one of them has a question."""
        for _, row in self._raw(benchmark):
            if isinstance(row, dict):
                self._has_questions = self._has_questions or question_in(row, "") != ""
                yield row

    def _rows(self, taken: set[str]) -> Iterator[AnswerRow]:
        """The rows of the file; a row that may mean several samples is assigned to the first that is not `taken` yet.

        The ids of the assigned samples are added to `taken`.
        """
        benchmark = self.benchmark
        key_of = benchmark.answer_key if isinstance(benchmark, MapsAnswerIds) else None
        for row in parse_answers(self._raw(benchmark), key_of, self.source.key):
            ids = benchmark.candidates(row.key or "") if isinstance(benchmark, HasAmbiguousIds) else ()
            if not ids:
                yield row
                continue
            free = next((one for one in ids if one not in taken), ids[-1])
            taken.add(free)
            yield row._replace(key=normal_key(free))

    def _raw(self, benchmark: Benchmark) -> Iterator[tuple[str, Any]]:
        path = self.source.path
        rows = benchmark.answer_rows(path) if path.is_dir() and isinstance(benchmark, ReadsFolders) else file_rows(path)
        if not isinstance(benchmark, RenumbersAnswers):
            return iter(rows)
        split = benchmark.split_row
        return ((where, one) for where, row in rows for one in (split(row) if isinstance(row, dict) else (row,)))
