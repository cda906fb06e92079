"""Where a benchmark meets a judge: the same benchmark comes back, scoring by what the judge said of the answers.

A judge is a server that is asked, or a file of verdicts; with neither, a benchmark says how it scores without one. What
is asked of a server is `asking`, what is kept `verdicts`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sightline.errors import InputError
from sightline.evals.benchmark import Benchmark
from sightline.evals.judging.anchors import ANCHORS, drift_text, grade_anchors, read_anchors
from sightline.evals.judging.judge_client import JudgeConfig, Say, judge
from sightline.evals.judging.verdicts import VERDICTS, JudgedBenchmark, Verdicts, read_verdicts
from sightline.records.rows import Answer, Sample

Answered = Callable[[], Iterable[tuple[Sample, Answer | None]]]


def _unheard(line: str) -> None:
    pass


@dataclass(frozen=True)
class Judging:
    """Who grades: a server by its config, or files of verdicts. `say` is told of costs; nobody listens by default."""

    config: JudgeConfig | None = None
    verdicts: Path | Sequence[Path] | None = None
    say: Say = _unheard

    @property
    def given(self) -> bool:
        """Whether anybody grades."""
        return self.config is not None or bool(self.files)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files and folders of verdicts."""
        if self.verdicts is None:
            return ()
        return (self.verdicts,) if isinstance(self.verdicts, Path) else tuple(self.verdicts)

    def identity(self, benchmark: Benchmark) -> str | None:
        """A hash of all that decides the verdicts on a benchmark's answers; None where nobody grades."""
        if not isinstance(benchmark, JudgedBenchmark) or not self.given:
            return None
        if self.config is not None:
            return self.config.identity(benchmark.grading)
        return read_verdicts(self.files, benchmark).judge


#: No judge at all.
NOBODY = Judging()


def judged(benchmark: Benchmark, answered: Answered, judging: Judging, folder: Path | None) -> tuple[Benchmark, int]:
    """The benchmark with verdicts on every answer, and how many calls failed; they are asked again next time.

    Verdicts are kept in `folder`; without one, in the endpoint's cache alone. A benchmark that no judge grades, or for
    which none is given, comes back as it is.

    Raises:
        InputError: of the server, a prompt's file or a file of verdicts.
    """
    if not isinstance(benchmark, JudgedBenchmark) or not judging.given:
        return benchmark, 0
    if judging.config is None:
        found = read_verdicts(judging.files, benchmark)
        graded = benchmark.with_verdicts(found)
        if (
            isinstance(graded, JudgedBenchmark) and graded.verdicts.given
        ):  # not where a benchmark goes by words all the same
            _report_ungraded(found, answered, judging)
        return graded, 0
    pairs = ((sample, answer) for sample, answer in answered() if answer is not None)
    found = judge(benchmark, pairs, judging.config, None if folder is None else folder / VERDICTS, judging.say)
    return benchmark.with_verdicts(found), sum(None in replies for replies in found.replies.values())


def _report_ungraded(verdicts: Verdicts, answered: Answered, judging: Judging) -> None:
    """Say how many answers the files leave without a verdict, such as half of a benchmark whose owners write two."""
    graded = [bool(verdicts.of(sample, answer)) for sample, answer in answered() if answer is not None]
    if not all(graded):
        files = ", ".join(str(path) for path in judging.files)
        judging.say(
            f"note: {graded.count(False)} of {len(graded)} answers have no verdict in {files} and are unscored;"
            " --verdicts may be repeated"
        )


def require_judged(benchmark: Benchmark, judging: Judging) -> None:
    """An InputError where a judge is given to a benchmark that asks none, or two at once."""
    if judging.config is not None and judging.files:
        raise InputError("a judge and a file of verdicts are given; leave one of them out.")
    if judging.given and not isinstance(benchmark, JudgedBenchmark):
        raise InputError(f"answers to {benchmark.name!r} are scored by rule, without a judge; leave the judge out.")


def check_anchors(benchmark: Benchmark, judging: Judging, folder: Path, when: datetime | None = None) -> str:
    """Have the anchors graded by a benchmark's protocol, keep the grades in `folder`, and tell how they moved.

    Raises:
        InputError: the benchmark has no judge, or of the server.
    """
    if not isinstance(benchmark, JudgedBenchmark) or judging.config is None:
        raise InputError(f"anchors need a judged benchmark and a judge; {benchmark.name!r} has not both.")
    before = [grades for grades in read_anchors(folder / ANCHORS) if grades.protocol == benchmark.grading.name]
    day = (when or datetime.now(UTC)).isoformat(timespec="seconds")
    grades = grade_anchors(judging.config, benchmark.grading, folder, day)
    return drift_text(before[-1] if before else None, grades)
