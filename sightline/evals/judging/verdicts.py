"""A judge's verdicts on answers, on disk and in memory.

A verdict holds the reply and not the score, so that a rule can change without a new call. Requests are sent in
`judge_client`; benchmarks build the cases (`protocols.Case`) and read the replies.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sightline.errors import InputError
from sightline.evals.benches.files import json_rows
from sightline.evals.benchmark import Benchmark, CountsEveryAnswer
from sightline.evals.judging.protocols import Case, Grading
from sightline.evals.repeats import RepeatKeys
from sightline.records import hash_file, hash_json, read_rows
from sightline.records.rows import Answer, Row, Sample

VERDICTS = "verdicts.jsonl"
#: Note of benchmarks that score nothing without a judge.
HOW_TO_JUDGE = (
    "is graded by a judge and unscored without one; run `sightline score {name} --answers ANSWERS --data DATA"
    " --judge JUDGE.yaml`"
)


class GradedVerdict(Row):
    """A judge's reply to one answer; None if the call failed, with the reason in `note`.

    `judge` is the hash of everything that determines a verdict, `answer` the hash of the answer's text. `run` counts
    from 0 if an answer is graded several times. `calls` and the tokens are the cost: 0 for a cached reply.
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
    """The hash of an answer's text in verdicts."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Verdicts:
    """Replies by sample and answer; if `given` is False, a judged benchmark leaves its answers unscored."""

    given: bool = False
    judge: str = ""
    replies: Mapping[tuple[str, str], tuple[str | None, ...]] = field(default_factory=dict)

    def replies_to(self, sample: Sample, answer: Answer) -> tuple[str | None, ...]:
        """The replies on the answer, one a run; empty if it was not graded."""
        own = self.replies.get((sample.id, hash_text(answer.text)))
        return self.replies.get((sample.id, ""), ()) if own is None else own


@runtime_checkable
class JudgedBenchmark(Protocol):
    """A benchmark whose answers a judge grades. `with_verdicts` returns the same benchmark, scoring by the verdicts.

    `judge_note` is the note if no judge is given: how answers are scored without one, and how to give one.
    """

    @property
    def judge_note(self) -> str: ...

    @property
    def grading(self) -> Grading: ...

    @property
    def verdicts(self) -> Verdicts: ...

    def case(self, sample: Sample, answer: Answer) -> Case: ...

    def with_verdicts(self, verdicts: Verdicts) -> Benchmark: ...


@runtime_checkable
class HasReviews(Protocol):
    """A judged benchmark whose owners publish the verdicts of their judge in their own file format.

    `review` is (sample, replies) of a row of such a file, `number` its place from 0; None if the row has no verdict.
    """

    def review(self, row: Mapping[str, Any], number: int) -> tuple[str, tuple[str, ...]] | None: ...


def group_verdicts(verdicts: Iterable[GradedVerdict], judge: str) -> Verdicts:
    """The verdicts of one judge by answer; later ones replace earlier ones of the same run."""
    runs: dict[tuple[str, str], dict[int, str | None]] = {}
    for verdict in verdicts:
        if verdict.judge == judge:
            runs.setdefault((verdict.sample_id, verdict.answer), {})[verdict.run] = verdict.reply
    replies = {key: tuple(text for _, text in sorted(found.items())) for key, found in runs.items()}
    return Verdicts(given=True, judge=judge, replies=replies)


def read_saved(path: Path, judge: str) -> Verdicts:
    """The verdicts of one judge in a file; empty if there is no file."""
    return group_verdicts(read_rows(path, GradedVerdict, allow_torn_tail=True) if path.exists() else (), judge)


def read_verdicts(paths: Sequence[Path], benchmark: JudgedBenchmark) -> Verdicts:
    """Verdicts from one Sightline file (those of its last judge), or from files in the layout of the owners.

    For a folder, its `verdicts.jsonl` is read, or else all its JSON files; files without a verdict are skipped.

    Raises:
        InputError: a file or any verdict is missing, a Sightline file is given with others, or two files overlap.
    """
    files = [file for path in paths for file in _files(path)]
    replies: dict[tuple[str, str], tuple[str | None, ...]] = {}
    source: dict[str, Path] = {}
    for file in files:
        rows = _rows(file)
        if rows and {"sample_id", "judge", "reply"} <= rows[-1].keys():
            if len(files) > 1:
                raise InputError(f"{file} holds verdicts by Sightline's judge; give it alone with --verdicts.")
            return read_saved(file, str(rows[-1]["judge"]))
        for sample_id, sample_replies in _reviews(rows, benchmark):
            if (other := source.setdefault(sample_id, file)) != file:
                raise InputError(
                    f"{other} and {file} both hold a verdict on {sample_id}; give --verdicts the files of one model."
                )
            replies[sample_id, ""] = sample_replies
    if not replies:
        named = ", ".join(str(path) for path in paths)
        raise InputError(f"{named} holds no verdict in Sightline's format or in that of the benchmark's owners.")
    hashes = [hash_file(file)[:16] for file in files]
    return Verdicts(given=True, judge=f"file {hashes[0] if len(hashes) == 1 else hash_json(hashes)}", replies=replies)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if (path / VERDICTS).is_file():
        return [path / VERDICTS]
    return sorted(file for file in path.iterdir() if file.suffix in (".json", ".jsonl") and file.is_file())


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; those of Object HalBench's `hall_*.json` are under `sentences`, beside its metrics."""
    if path.is_file() and path.suffix == ".json":
        try:
            value = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            value = None  # JSON lines, or an error that `json_rows` reports
        if isinstance(value, dict) and isinstance(value.get("sentences"), list):
            return [row for row in value["sentences"] if isinstance(row, dict)]
    return [row for _, row in json_rows(path)]


def _reviews(rows: Sequence[Mapping[str, Any]], benchmark: JudgedBenchmark) -> list[tuple[str, tuple[str, ...]]]:
    """(sample, replies) of the rows of an owners' file that hold a verdict."""
    if not isinstance(benchmark, HasReviews):
        return []
    found = [one for number, row in enumerate(rows) if (one := benchmark.review(row, number)) is not None]
    if not (isinstance(benchmark, CountsEveryAnswer) and benchmark.counts_every_answer):
        return found
    repeat_keys = RepeatKeys()
    return [(repeat_keys.key(sample_id), replies) for sample_id, replies in found]
