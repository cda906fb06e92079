"""The benchmark protocol (samples, a pure scorer, metrics) and the optional protocols that some benchmarks implement.

Names of benchmarks are in `registry`, metrics in `metrics`, intervals in `statistics`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sightline.evals.metrics import AnyMetric, Derived, Metric, average, count, mean
from sightline.records.rows import Answer, Sample, Score

__all__ = [
    "DECIDED_BY_QUIRK",
    "AdaptsToAnswers",
    "AnyMetric",
    "Benchmark",
    "BenchmarkOptions",
    "CombinesScores",
    "CountsEveryAnswer",
    "Derived",
    "HasAmbiguousIds",
    "HasCaveats",
    "HasGroups",
    "HasOpenList",
    "MapsAnswerIds",
    "Metric",
    "ReadsFolders",
    "RefusesRepeats",
    "RenumbersAnswers",
    "average",
    "count",
    "mean",
]  # fmt: skip

#: Key of the value that is 1 where a default or quirk of the official rule decided the score, else 0.
DECIDED_BY_QUIRK = "touched"


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of a benchmark: `folder` is read for its files or receives them, `images` holds images kept elsewhere.

    `limit` keeps the first so many images. `validation` uses a separate set of images for tuning. `split` selects one
    official part, `synonyms` is a word list that replaces the benchmark's own.
    """

    folder: Path
    images: Path | None = None
    limit: int | None = None
    validation: bool = False
    split: str | None = None
    synonyms: Path | None = None


class Benchmark(Protocol):
    """Samples with a scorer. Answers are greedy; questions on one image share the sample's `cluster`.

    Image paths of samples are relative to `folder`, which exists once `samples` has been called. `samples` needs no
    image and no model, so that answers can be scored from the question lists alone. `score` is pure: the same sample
    and answer give the same score. In `Score.details`, `hallucinated` lists the [start, end) character spans of the
    answer that are not in the image; the report highlights them.
    """

    @property
    def name(self) -> str: ...

    @property
    def max_new_tokens(self) -> int: ...

    @property
    def folder(self) -> Path: ...

    @property
    def metrics(self) -> Mapping[str, AnyMetric]: ...

    def samples(self) -> Iterator[Sample]: ...

    def score(self, sample: Sample, answer: Answer) -> Score: ...


@runtime_checkable
class HasGroups(Protocol):
    """A benchmark with metrics of single parts (splits, categories).

    `groups` names the parts that a sample belongs to; they become `Score.groups`, whether it is answered or not.
    """

    def groups(self, sample: Sample) -> tuple[str, ...]: ...


@runtime_checkable
class CombinesScores(Protocol):
    """A benchmark with values over several answers, such as "both questions on this image are right".

    `combine` takes the scores in the order of the samples (missing answers have None for every value) and yields as
    many in the same order, with a group's value on one row of the group. A row that counts for a metric of groups has
    that metric's group added to its `groups`.
    """

    def combine(self, scores: Iterable[Score]) -> Iterator[Score]: ...


@runtime_checkable
class ReadsFolders(Protocol):
    """A benchmark whose official answer format is a folder of files.

    `answer_rows` yields the rows of such a folder, each with its place for errors.
    """

    def answer_rows(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]: ...


@runtime_checkable
class MapsAnswerIds(Protocol):
    """A benchmark whose answer files identify questions in a special way.

    `answer_key` is the id of the sample that a row answers, None where the row does not identify one.
    """

    def answer_key(self, row: Mapping[str, Any]) -> str | None: ...


@runtime_checkable
class RenumbersAnswers(Benchmark, MapsAnswerIds, Protocol):
    """A benchmark whose answer files number questions in several ways, or answer several samples with one row.

    `with_numbering` is the benchmark adapted to the numbering of the rows, `split_row` gives one row for each sample.
    """

    def with_numbering(self, rows: Iterable[Mapping[str, Any]]) -> "Benchmark": ...

    def split_row(self, row: dict[str, Any]) -> Iterable[dict[str, Any]]: ...


@runtime_checkable
class HasAmbiguousIds(Benchmark, MapsAnswerIds, Protocol):
    """A benchmark with answer files that do not distinguish equal questions, all officially scored by one truth.

    `candidates` lists the ids of the samples that such a row's key may mean, in order; it is empty for other keys.
    `as_ambiguous` is the sample as the owners score it in that case.
    """

    def candidates(self, key: str) -> tuple[str, ...]: ...

    def as_ambiguous(self, sample: Sample) -> Sample: ...


@runtime_checkable
class HasCaveats(Protocol):
    """A benchmark whose metrics depend on optional files or packages; `caveats` are sentences on what was missing."""

    @property
    def caveats(self) -> tuple[str, ...]: ...


@runtime_checkable
class HasOpenList(Protocol):
    """A benchmark that may lack a fixed question list: with `scores_only_answered`, unanswered samples are skipped."""

    @property
    def scores_only_answered(self) -> bool: ...


@runtime_checkable
class AdaptsToAnswers(Protocol):
    """A benchmark whose official rule depends on the answer file's layout; `adapt_to` returns the one for `answers`."""

    def adapt_to(self, answers: Path) -> Benchmark: ...


@runtime_checkable
class CountsEveryAnswer(Protocol):
    """A benchmark that officially scores every answer in a file, including several to one sample.

    Other benchmarks score the first answer to a sample and report the rest, or refuse the file (`RefusesRepeats`).
    """

    @property
    def counts_every_answer(self) -> bool: ...


@runtime_checkable
class RefusesRepeats(Protocol):
    """A benchmark whose script counts every answer in a file, though each sample has one: a second one is a mistake."""

    @property
    def refuses_repeats(self) -> bool: ...
