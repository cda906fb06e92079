"""Scores of questions and answers, saved as they arrive, so that a stopped run resumes.

Scores come from a judge, from human grades, or at random; `keep_best` and `best_candidates` select by them.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.builders.builder import batched, sample_rng
from sightline.data import labels
from sightline.errors import InputError
from sightline.judges.judge import Judge
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput
from sightline.recipes.curation.config import RankingConfig
from sightline.records import Grade, Row, Sample, append_rows, read_rows

#: (sample, answer); the answer is empty if a sample has only one.
Key = tuple[str, str]


def read_grades(path: Path, criteria: Mapping[str, float]) -> dict[Key, float]:
    """The mean over raters of the weighted mean over `criteria`; without criteria, all of a row count equally.

    A row that lacks one of the criteria is ignored: it may be about something else.

    Raises:
        InputError: no such file, a row that is not a grade, or no row with the criteria.
    """
    given: defaultdict[Key, list[float]] = defaultdict(list)
    known: set[str] = set()
    rows = labels.read_grades(path) if labels.is_labels(path) else read_rows(path, Grade, allow_torn_tail=True)
    for grade in rows:
        scores = {name: value for name, value in grade.scores.items() if value is not None}
        known |= scores.keys()
        wanted = criteria or dict.fromkeys(scores, 1.0)
        if wanted and wanted.keys() <= scores.keys():
            total = sum(weight * scores[name] for name, weight in wanted.items())
            given[grade.sample_id, grade.answer_id].append(total / sum(wanted.values()))
    if not given:
        raise InputError(
            f"{path}: no row has the criteria {', '.join(criteria) or '(any)'}; there are: {', '.join(sorted(known))}"
        )
    return {key: sum(values) / len(values) for key, values in given.items()}


_PURPOSE = {"questions": 2601, "answers": 2602}


class ScoreRow(Row):
    """The score of one item; None is unscored, with the reason in `note`."""

    id: str
    score: float | None
    note: str = ""


@dataclass(frozen=True)
class ScoredItem:
    """A question or answer to score: its sample, the turn's number, and the judge's input."""

    id: str
    sample: Sample
    turn: int
    judged: JudgeInput


def score_items(
    name: str,
    items: Sequence[ScoredItem],
    ranking: RankingConfig,
    context: RunContext,
    wave: int,
    seen: Callable[[int], None],
) -> dict[str, ScoreRow]:
    """The score of every item by id; `seen` receives the number just scored. `name` is questions or answers."""
    path = context.scratch / f"{name}.jsonl"
    known = {row.id: row for row in read_rows(path, ScoreRow, allow_torn_tail=True)} if path.exists() else {}
    left = [item for item in items if item.id not in known]
    seen(len(items) - len(left))
    for part in _score_waves(name, left, ranking, context, wave):
        append_rows(path, part)
        known |= {row.id: row for row in part}
        seen(len(part))
    return known


def _score_waves(
    name: str, items: Sequence[ScoredItem], ranking: RankingConfig, context: RunContext, wave: int
) -> Iterator[list[ScoreRow]]:
    judge: Judge | None = ranking.judge.open(context) if ranking.judge is not None and items else None
    grades: Mapping[Key, float] = {} if ranking.grades is None else read_grades(ranking.grades, ranking.criteria)
    for part in batched(items, wave):
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
            draws = [sample_rng(context.seed, item.sample, _PURPOSE[name], item.turn).random() for item in part]
            yield [ScoreRow(id=item.id, score=float(draw)) for item, draw in zip(part, draws, strict=True)]


def keep_best(
    scores: Mapping[str, float | None], types: Mapping[str, str], share: float, shares: Mapping[str, float]
) -> set[str]:
    """The ids of the best of each type: `share` of it, or the share in `shares`; at least one.

    The number kept is rounded down from all of the type, including items without a score, which are never kept. Of
    equal scores the smaller id is kept.
    """
    groups: dict[str, list[str]] = {}
    for name in scores:
        groups.setdefault(types[name], []).append(name)
    kept: set[str] = set()
    for kind, names in groups.items():
        scored = sorted((-score, name) for name in names if (score := scores[name]) is not None)
        number = max(1, math.floor(len(names) * shares.get(kind, share) + 1e-9))
        kept |= {name for _, name in scored[:number]}
    return kept


def best_candidates(scores: list[list[float | None]]) -> tuple[float | None, tuple[int, ...]]:
    """`[turn][candidate]` scores -> the mean over turns of the best candidate's score, and the best candidates.

    None if a turn has no scored candidate; of equal scores the first candidate is taken.
    """
    best: list[tuple[float, int]] = []
    for turn in scores:
        scored = [(score, -place) for place, score in enumerate(turn) if score is not None]
        if not scored:
            return None, ()
        score, place = max(scored)
        best.append((score, -place))
    return sum(score for score, _ in best) / len(best), tuple(place for _, place in best)
