"""What a judge said of which answer, on disk and in memory: kept, and read again as often as wanted.

A verdict holds the reply and not the score, so that a rule can change without a call. Nothing is asked here (`asking`
does that), and no benchmark is known; those make the cases (`grading.Case`) and read the replies.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sightline.errors import InputError
from sightline.evals.benches.files import json_rows
from sightline.evals.benchmark import Benchmark
from sightline.evals.judging.grading import Case, Grading
from sightline.records import hash_file, read_rows
from sightline.records.rows import Answer, Row, Sample

VERDICTS = "verdicts.jsonl"
#: How to have answers graded, for benchmarks that score nothing without a judge.
HOW_TO_JUDGE = (
    "is graded by a judge and unscored without one; run `sightline score {name} --answers ANSWERS --data DATA"
    " --judge JUDGE.yaml`"
)


class Verdict(Row):
    """A judge's reply to one answer; None where the call failed, and `note` says why.

    `judge` is the hash of all that decides a verdict, `answer` that of the answer's text. `run` counts from 0 where an
    answer is graded several times. `calls` and the tokens are what it cost: nothing where the reply was on disk.
    """

    sample_id: str
    judge: str = ""
    answer: str = ""
    run: int = 0
    reply: str | None
    note: str = ""
    calls: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0


def hash_text(text: str) -> str:
    """The name of an answer's text in verdicts."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Verdicts:
    """Replies by sample and answer; where `given` is False, a judged benchmark leaves its answers unscored."""

    given: bool = False
    judge: str = ""
    replies: Mapping[tuple[str, str], tuple[str | None, ...]] = field(default_factory=dict)

    def of(self, sample: Sample, answer: Answer) -> tuple[str | None, ...]:
        """What was said of the answer, one reply a run; empty where nobody was asked."""
        own = self.replies.get((sample.id, hash_text(answer.text)))
        return self.replies.get((sample.id, ""), ()) if own is None else own


@runtime_checkable
class Judged(Protocol):
    """A benchmark whose answers a judge grades. `with_verdicts` is the same benchmark, scoring by what was said.

    `unjudged` is what to tell where no judge is given: how answers are then scored, and how to give one.
    """

    @property
    def unjudged(self) -> str: ...

    @property
    def grading(self) -> Grading: ...

    @property
    def verdicts(self) -> Verdicts: ...

    def case(self, sample: Sample, answer: Answer) -> Case: ...

    def with_verdicts(self, verdicts: Verdicts) -> Benchmark: ...


@runtime_checkable
class Reviewed(Protocol):
    """A judged benchmark whose owners keep what their judge said in files of their own.

    `review` is (sample, replies) of a row of such a file, `number` its place from 0; None where it says nothing.
    """

    def review(self, row: Mapping[str, Any], number: int) -> tuple[str, tuple[str, ...]] | None: ...


def gather(verdicts: Iterable[Verdict], judge: str) -> Verdicts:
    """Verdicts by answer, of one judge; later ones replace earlier ones of the same run."""
    runs: dict[tuple[str, str], dict[int, str | None]] = {}
    for verdict in verdicts:
        if verdict.judge == judge:
            runs.setdefault((verdict.sample_id, verdict.answer), {})[verdict.run] = verdict.reply
    replies = {key: tuple(said for _, said in sorted(found.items())) for key, found in runs.items()}
    return Verdicts(given=True, judge=judge, replies=replies)


def kept(path: Path, judge: str) -> Verdicts:
    """The verdicts of one judge in a file; none where there is no file."""
    return gather(read_rows(path, Verdict, allow_torn_tail=True) if path.exists() else (), judge)


def read_verdicts(path: Path, benchmark: Judged) -> Verdicts:
    """Verdicts from a file: ours, of the judge that spoke last, or the layout of the benchmark's owners.

    Raises:
        InputError: no such file, or not one verdict in it.
    """
    rows = [row for _, row in json_rows(path)]
    if rows and {"sample_id", "judge", "reply"} <= rows[-1].keys():
        return kept(path, str(rows[-1]["judge"]))
    replies: dict[tuple[str, str], tuple[str | None, ...]] = {}
    if isinstance(benchmark, Reviewed):
        found = (benchmark.review(row, number) for number, row in enumerate(rows))
        replies = {(one[0], ""): one[1] for one in found if one is not None}
    if not replies:
        raise InputError(f"{path} holds no verdict, neither of ours nor as the benchmark's owners write them.")
    return Verdicts(given=True, judge=f"file {hash_file(path)[:16]}", replies=replies)
