"""Scoring with a judge: a benchmark is returned with the judge's verdicts on its answers.

The judge is a server or a file of verdicts; without either, the benchmark notes how it scores. Requests are sent in
`judge_client`, verdicts stored in `verdicts`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sightline.errors import InputError
from sightline.evals.benchmark import Benchmark
from sightline.evals.judging.anchors import ANCHORS, drift_text, grade_anchors, read_anchors
from sightline.evals.judging.judge_client import EvalJudgeConfig, Log, grade_answers
from sightline.evals.judging.verdicts import VERDICTS, JudgedBenchmark, Verdicts, read_verdicts
from sightline.records.rows import Answer, Sample

Answered = Callable[[], Iterable[tuple[Sample, Answer | None]]]


@dataclass(frozen=True)
class Judging:
    """The judge: a server by its config, or files of verdicts. `log` receives the costs; by default it drops them."""

    config: EvalJudgeConfig | None = None
    verdicts: Path | Sequence[Path] | None = None
    log: Log = field(default=lambda _: None)

    @property
    def given(self) -> bool:
        """Whether there is a judge."""
        return self.config is not None or bool(self.files)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files and folders of verdicts."""
        if self.verdicts is None:
            return ()
        return (self.verdicts,) if isinstance(self.verdicts, Path) else tuple(self.verdicts)

    def identity(self, benchmark: Benchmark) -> str | None:
        """A hash of everything that determines the verdicts on a benchmark's answers; None without a judge."""
        if not isinstance(benchmark, JudgedBenchmark) or not self.given:
            return None
        if self.config is not None:
            return self.config.identity(benchmark.grading)
        return read_verdicts(self.files, benchmark).judge


#: No judge at all.
NO_JUDGE = Judging()


def apply_judge(
    benchmark: Benchmark, answered: Answered, judging: Judging, folder: Path | None
) -> tuple[Benchmark, int]:
    """The benchmark with verdicts on every answer, and the number of failed calls, which the next run retries.

    Verdicts are stored in `folder`; without one, only in the endpoint's cache. A benchmark that needs no judge, or for
    which none is given, is returned unchanged.

    Raises:
        InputError: the server fails, or a prompt's file or a file of verdicts is invalid.
    """
    if not isinstance(benchmark, JudgedBenchmark) or not judging.given:
        return benchmark, 0
    if judging.config is None:
        found = read_verdicts(judging.files, benchmark)
        graded = benchmark.with_verdicts(found)
        if isinstance(graded, JudgedBenchmark) and graded.verdicts.given:  # False if the benchmark is scored by words
            _report_ungraded(found, answered, judging)
        return graded, 0
    pairs = ((sample, answer) for sample, answer in answered() if answer is not None)
    found = grade_answers(benchmark, pairs, judging.config, None if folder is None else folder / VERDICTS, judging.log)
    return benchmark.with_verdicts(found), sum(None in replies for replies in found.replies.values())


def _report_ungraded(verdicts: Verdicts, answered: Answered, judging: Judging) -> None:
    """Log the number of answers without a verdict, such as half of a benchmark whose owners write two files."""
    graded = [bool(verdicts.replies_to(sample, answer)) for sample, answer in answered() if answer is not None]
    if not all(graded):
        files = ", ".join(str(path) for path in judging.files)
        judging.log(
            f"note: {graded.count(False)} of {len(graded)} answers have no verdict in {files} and are unscored;"
            " --verdicts may be repeated"
        )


def check_judging(benchmark: Benchmark, judging: Judging) -> None:
    """Raise an InputError if a benchmark without a judge is given one, or if two judges are given."""
    if judging.config is not None and judging.files:
        raise InputError("both a judge and a file of verdicts are given; remove one of them.")
    if judging.given and not isinstance(benchmark, JudgedBenchmark):
        raise InputError(f"answers to {benchmark.name!r} are scored by rule, without a judge; remove the judge.")


def check_anchors(benchmark: Benchmark, judging: Judging, folder: Path, when: datetime | None = None) -> str:
    """Have the anchors graded by a benchmark's protocol, store the grades in `folder`, and describe their drift.

    Raises:
        InputError: the benchmark needs no judge, no judge is given, or the server fails.
    """
    if not isinstance(benchmark, JudgedBenchmark) or judging.config is None:
        raise InputError(f"anchors need a judged benchmark and a judge; {benchmark.name!r} lacks one of them.")
    before = [grades for grades in read_anchors(folder / ANCHORS) if grades.protocol == benchmark.grading.name]
    day = (when or datetime.now(UTC)).isoformat(timespec="seconds")
    grades = grade_anchors(judging.config, benchmark.grading, folder, day)
    return drift_text(before[-1] if before else None, grades)
