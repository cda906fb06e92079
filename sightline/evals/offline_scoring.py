"""Scoring a file of answers: from the command's arguments to estimates, and what to tell about answers left over.

No model answers here and nothing of torch is imported. What is written is an evaluation directory as `run` writes it,
so that reports and comparisons read both alike.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.config import SparseConfig
from sightline.evals.answer_alignment import AlignmentCounts, Corrections, corrections, match
from sightline.evals.answer_keys import question_in
from sightline.evals.answer_reader import AnswerSource, Given, file_rows, given, normal_key
from sightline.evals.answer_stats import remarks_of
from sightline.evals.benchmark import (
    Adapting,
    AnyMetric,
    Benchmark,
    BenchmarkSetting,
    Confusing,
    CountingAll,
    InFolders,
    Keyed,
    Numbering,
    Unlisted,
)
from sightline.evals.directory import ANSWERS, SAMPLES, read_result, relocated
from sightline.evals.judging.judged_scoring import NOBODY, Judging, judged, require_judged
from sightline.evals.questions import ReasoningTally
from sightline.evals.registry import get_benchmark
from sightline.evals.repeats import copy_samples, count_answers, is_copy, number_answers
from sightline.evals.scoring import all_metrics, as_scored, estimate_scores, score_all, write_scores
from sightline.evals.statistics import RESAMPLES
from sightline.records.manifest import Stage
from sightline.records.rows import Answer, Estimate, Sample
from sightline.records.store import write_rows


class ScoreConfig(SparseConfig):
    """What decides the numbers, beside the files themselves. `answer_key` names the model's answer in them."""

    SPARSE = frozenset({"answer_key", "strip_reasoning"})

    benchmarks: tuple[str, ...]
    split: str | None = None
    limit: int | None = None
    resamples: int = RESAMPLES
    judge: str | None = None
    answer_key: str | None = None
    strip_reasoning: bool = False


@dataclass(frozen=True)
class ScoredFile:
    """Every metric with its estimate, and sentences on answers left over and on how they were scored."""

    metrics: dict[str, AnyMetric]
    estimates: dict[str, Estimate]
    notes: tuple[str, ...]


def score_file(
    name: str,
    answers: Path | AnswerSource,
    setting: BenchmarkSetting,
    *,
    judging: Judging = NOBODY,
    out: Path | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ScoredFile:
    """Score a file of answers to one benchmark; with `out`, keep samples, answers, verdicts and scores there.

    `judging` says who grades, where the benchmark asks a judge.

    Raises:
        InputError: an unknown benchmark, a file that is missing or broken, answers to other questions, or of a judge.
    """
    source = answers if isinstance(answers, AnswerSource) else AnswerSource(answers)
    benchmark = get_benchmark(name, setting)
    if isinstance(benchmark, Adapting):
        benchmark = benchmark.adapted(source.path)
    require_judged(benchmark, judging)
    file = AnsweredFile(benchmark, source)
    if out is not None:
        return _kept(file, setting, judging, out, resamples, seed)
    tally, reasoning = AlignmentCounts(), ReasoningTally(source.strip_reasoning)
    graded, _ = judged(file.benchmark, file.to_judge, judging, None)
    scores = score_all(graded, file.read(tally), reasoning)
    estimates = estimate_scores(graded, scores, resamples=resamples, seed=seed, reasoning=reasoning)
    notes = (*tally.sentences(), *remarks_of(graded, estimates, reasoning))
    return ScoredFile(all_metrics(graded, reasoning), estimates, notes)


def _kept(
    file: "AnsweredFile", setting: BenchmarkSetting, judging: Judging, out: Path, resamples: int, seed: int
) -> ScoredFile:
    """Score a file of answers in a directory of evaluation, or read what is there already."""
    benchmark, source, tally = file.benchmark, file.source, AlignmentCounts()
    config = ScoreConfig(
        benchmarks=(benchmark.name,),
        split=setting.split,
        limit=setting.limit,
        resamples=resamples,
        judge=judging.identity(benchmark),
        answer_key=source.key,
        strip_reasoning=source.strip_reasoning,
    )
    inputs = {"answers": source.path} | ({"synonyms": setting.synonyms} if setting.synonyms else {})
    next(file.read(AlignmentCounts()))  # so that a mistake does not claim the directory
    stage = Stage.open(out, "score", config, inputs, seed)
    folder, failures = out / benchmark.name, []
    if not stage.done:
        listed = (sample for sample, _ in file.read(AlignmentCounts()))
        write_rows(folder / SAMPLES, (relocated(sample, benchmark.folder, folder) for sample in listed))
        write_rows(folder / ANSWERS, (a for _, a in file.read(tally) if a is not None))
        graded, failed = judged(benchmark, file.to_judge, judging, folder)
        reasoning = ReasoningTally(source.strip_reasoning)
        write_scores(graded, file.read(AlignmentCounts()), folder, resamples=resamples, seed=seed, reasoning=reasoning)
        counts = {"samples": tally.samples, "answers": tally.samples - tally.missing}
        dropped = {"repeated": tally.repeated, "unknown": tally.unknown}
        if tally.other_question:
            dropped["other question"] = tally.other_question
        if failed:
            failures.append(f"{failed} calls of the judge failed; run the same command again to ask for them alone")
        else:
            stage.finish(counts=counts, dropped=dropped, warnings=tally.warnings())
    result = read_result(out, benchmark.name)
    return ScoredFile(dict(result.metrics), dict(result.estimates), (*tally.sentences(), *result.remarks, *failures))


class AnsweredFile:
    """A file of answers and the benchmark that they answer; read anew at every call, in the order of the samples."""

    def __init__(self, benchmark: Benchmark, source: AnswerSource) -> None:
        self.source = source
        self._has_questions = False
        rows = self._survey(benchmark)
        if isinstance(benchmark, Numbering):
            benchmark = benchmark.numbered(rows)
        self.benchmark = benchmark
        self._open = isinstance(benchmark, Unlisted) and benchmark.asks_what_is_answered
        counts_all = isinstance(benchmark, CountingAll) and benchmark.counts_every_answer
        self._counts = count_answers(self._rows(set())) if counts_all else Counter[str]()
        self._corrections = Corrections()
        if not self._open and (self._has_questions or any(self._has_questions for _ in rows)):
            self._corrections = corrections(benchmark.samples, lambda: self._rows(set()))

    def read(self, tally: AlignmentCounts) -> Iterator[tuple[Sample, Answer | None]]:
        """The samples with the answers of the file; `tally` fills as they are read."""
        taken: set[str] = set()
        rows = self._corrections.applied(self._rows(taken), tally)
        for sample, answer in match(self._samples, number_answers(rows) if self._counts else rows, tally):
            if answer is None and self._open:
                continue
            tally.further += answer is not None and is_copy(sample.id, self._counts)
            if isinstance(self.benchmark, Confusing) and sample.id in taken:
                yield self.benchmark.confused(sample), answer
            else:
                yield sample, answer
        if self._open:
            tally.samples, tally.missing = tally.samples - tally.missing, 0

    def _samples(self) -> Iterator[Sample]:
        """The samples; where every answer counts, a sample that has several as often as it has answers."""
        return copy_samples(self.benchmark.samples(), self._counts) if self._counts else self.benchmark.samples()

    def to_judge(self) -> Iterator[tuple[Sample, Answer | None]]:
        """The samples with the answers as a judge is to read them."""
        return as_scored(self.read(AlignmentCounts()), self.source.strip_reasoning)

    def _survey(self, benchmark: Benchmark) -> Iterator[dict[str, Any]]:
        """The rows of the file as they stand there, noting whether one says what was asked."""
        for _, row in self._raw(benchmark):
            if isinstance(row, dict):
                self._has_questions = self._has_questions or question_in(row, "") != ""
                yield row

    def _rows(self, taken: set[str]) -> Iterator[Given]:
        """The rows of the file. Those that may mean several samples mean the first, the second and so on, as they come.

        `taken` gets the samples of such rows.
        """
        benchmark = self.benchmark
        key_of = benchmark.answer_key if isinstance(benchmark, Keyed) else None
        for row in given(self._raw(benchmark), key_of, self.source.key):
            ids = benchmark.alike(row.key or "") if isinstance(benchmark, Confusing) else ()
            if not ids:
                yield row
                continue
            free = next((one for one in ids if one not in taken), ids[-1])
            taken.add(free)
            yield row._replace(key=normal_key(free))

    def _raw(self, benchmark: Benchmark) -> Iterator[tuple[str, Any]]:
        path = self.source.path
        rows = benchmark.answer_rows(path) if path.is_dir() and isinstance(benchmark, InFolders) else file_rows(path)
        if not isinstance(benchmark, Numbering):
            return iter(rows)
        return (
            (where, one) for where, row in rows for one in (benchmark.divided(row) if isinstance(row, dict) else (row,))
        )
