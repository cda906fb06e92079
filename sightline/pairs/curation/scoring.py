"""Scores of questions and answers, kept on disk as they come, so that a run that was stopped goes on.

By a judge, by people's grades, or by the draw; what is kept by them is `filtering`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sightline.pairs.builder import Tools, rng_of, waves
from sightline.pairs.curation.config import RankingConfig
from sightline.pairs.curation.grades import Key, read_grades
from sightline.pairs.judges.base import Judge, Judged
from sightline.records import Row, Sample, append_rows, read_rows

_PURPOSE = {"questions": 2601, "answers": 2602}


class ScoreRow(Row):
    """The score of one item; None is unscored, and `note` says why."""

    id: str
    score: float | None
    note: str = ""


@dataclass(frozen=True)
class Item:
    """One question or answer to score: its sample, which of its turns, and what a judge is shown."""

    id: str
    sample: Sample
    turn: int
    judged: Judged


def scored(
    name: str, items: Sequence[Item], ranking: RankingConfig, tools: Tools, wave: int, seen: Callable[[int], None]
) -> dict[str, ScoreRow]:
    """The score of every item by id; `seen` is told how many were just scored. `name` is questions or answers."""
    path = tools.scratch / f"{name}.jsonl"
    known = {row.id: row for row in read_rows(path, ScoreRow, allow_torn_tail=True)} if path.exists() else {}
    left = [item for item in items if item.id not in known]
    seen(len(items) - len(left))
    for part in _waves(name, left, ranking, tools, wave):
        append_rows(path, part)
        known |= {row.id: row for row in part}
        seen(len(part))
    return known


def _waves(
    name: str, items: Sequence[Item], ranking: RankingConfig, tools: Tools, wave: int
) -> Iterator[list[ScoreRow]]:
    judge: Judge | None = ranking.judge.open(tools) if ranking.judge is not None and items else None
    grades: Mapping[Key, float] = {} if ranking.grades is None else read_grades(ranking.grades, ranking.criteria)
    for part in waves(items, wave):
        if judge is not None:
            verdicts = judge.score([item.judged for item in part])
            rows = zip(part, verdicts, strict=True)
            yield [ScoreRow(id=item.id, score=verdict.score, note=verdict.note) for item, verdict in rows]
        elif ranking.grades is not None:
            found = [grades.get((item.sample.id, "")) for item in part]
            yield [
                ScoreRow(id=item.id, score=score, note="" if score is not None else "nobody graded it")
                for item, score in zip(part, found, strict=True)
            ]
        else:
            draws = [rng_of(tools.seed, item.sample, _PURPOSE[name], item.turn).random() for item in part]
            yield [ScoreRow(id=item.id, score=float(draw)) for item, draw in zip(part, draws, strict=True)]
