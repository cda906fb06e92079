"""What a benchmark is: samples, a pure scorer, and metrics; and what some of them offer beyond that.

No benchmark lives here and nothing is generated here. The names of benchmarks are in `registry`, what a metric is in
`metrics`, the intervals in `statistics`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sightline.evals.metrics import AnyMetric, Derived, Metric, average, count, mean
from sightline.records.rows import Answer, Sample, Score

__all__ = [
    "TOUCHED",
    "Adapting",
    "AnyMetric",
    "Benchmark",
    "BenchmarkSetting",
    "Combining",
    "Confusing",
    "CountingAll",
    "Derived",
    "Grouped",
    "InFolders",
    "Keyed",
    "Metric",
    "Numbering",
    "Remarking",
    "Unlisted",
    "average",
    "count",
    "mean",
]

#: The value by which a score says that an official default or quirk decided it: 1 or 0. `scoring` adds it up.
TOUCHED = "touched"


@dataclass(frozen=True)
class BenchmarkSetting:
    """What a benchmark is made with: `folder` is where its files are or may be put, `images` its pictures if elsewhere.

    `limit` keeps its first so many pictures. With `validation` it asks of other pictures, those on which settings may
    be chosen. `split` picks one of its official parts, `synonyms` is a word list that replaces its own.
    """

    folder: Path
    images: Path | None = None
    limit: int | None = None
    validation: bool = False
    split: str | None = None
    synonyms: Path | None = None


class Benchmark(Protocol):
    """Samples with a scorer. Answers are greedy; questions on one image share the sample's `cluster`.

    `folder` is the directory that the samples' image paths are relative to; it exists once `samples` has been called.
    `samples` needs no picture and no model, so that answers can be scored where only the lists are.
    `score` is pure: same sample and answer, same score. In `Score.details`, `hallucinated` lists the
    [start, end) character spans of the answer's text that are not in the picture; the report marks them.
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
class Grouped(Protocol):
    """A benchmark of parts (splits, categories) with metrics of their own.

    `groups` names the parts a sample counts for; they become `Score.groups`, answered or not.
    """

    def groups(self, sample: Sample) -> tuple[str, ...]: ...


@runtime_checkable
class Combining(Protocol):
    """A benchmark with values of several answers together, such as "both questions on this image are right".

    `combine` is given the scores in the order of the samples, those of missing answers with None for every value, and
    yields as many, in order, where a group's value stands on one of its rows. A row that is to count for a metric
    of groups has the metric's group added to its `groups`.
    """

    def combine(self, scores: Iterable[Score]) -> Iterator[Score]: ...


@runtime_checkable
class InFolders(Protocol):
    """A benchmark whose owners keep answers in a folder of files of a layout of their own.

    `answer_rows` is the rows of such a folder, each with its place for errors.
    """

    def answer_rows(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]: ...


@runtime_checkable
class Keyed(Protocol):
    """A benchmark whose answer files name their question in a way of their own.

    `answer_key` is the sample's id that a row of such a file means, None where the row does not say.
    """

    def answer_key(self, row: Mapping[str, Any]) -> str | None: ...


@runtime_checkable
class Numbering(Benchmark, Keyed, Protocol):
    """A benchmark whose answer files number their questions in several ways, or answer several samples by one row.

    `numbered` is the benchmark as it reads the ids of these rows, `divided` a row as one row for each sample.
    """

    def numbered(self, rows: Iterable[Mapping[str, Any]]) -> "Benchmark": ...

    def divided(self, row: dict[str, Any]) -> Iterable[dict[str, Any]]: ...


@runtime_checkable
class Confusing(Benchmark, Keyed, Protocol):
    """A benchmark of which some answer files cannot tell equal questions apart, so that its owners score all
    answers to them by the truth of one.

    `alike` is the ids of the samples that such a row's key may mean, in order, none for other keys. `confused` is a
    sample as the owners score it then.
    """

    def alike(self, key: str) -> tuple[str, ...]: ...

    def confused(self, sample: Sample) -> Sample: ...


@runtime_checkable
class Remarking(Protocol):
    """A benchmark whose figures depend on what is given or installed; `remarks` are sentences on what was not."""

    @property
    def remarks(self) -> tuple[str, ...]: ...


@runtime_checkable
class Unlisted(Protocol):
    """A benchmark that may be without a list of its own: what was answered is then what was asked.

    Where `asks_what_is_answered`, a sample without an answer is no missing one; it is left out.
    """

    @property
    def asks_what_is_answered(self) -> bool: ...


@runtime_checkable
class Adapting(Protocol):
    """A benchmark whose owners score files of answers by their layout; `adapted` is the one that scores `answers`."""

    def adapted(self, answers: Path) -> Benchmark: ...


@runtime_checkable
class CountingAll(Protocol):
    """A benchmark whose owners score every answer in a file, also several to one sample.

    Elsewhere the first answer to a sample counts and others are reported.
    """

    @property
    def counts_every_answer(self) -> bool: ...
