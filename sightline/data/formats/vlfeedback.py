"""VLFeedback (arXiv 2312.10665): several answers to a prompt, each rated in three aspects; pairs in order of score.

Columns as on the dataset's card: `id`, `prompt`, `models`, `completions` with `model`, `response` and `annotations`
(aspect -> `Rating`, `Rationale`, both texts), and `img_path` or an embedded image. A score is the mean of the ratings,
as in the authors' `run_dpo.py`, which takes all pairs and leaves ties and ratings that are no numbers out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sightline.config.problems import shorten
from sightline.data.formats.conversations import pair_drafts, question
from sightline.data.formats.drafts import (
    TIE,
    BadRow,
    Columns,
    Drafts,
    Dropped,
    Layout,
    ReadConfig,
    holds,
    known,
    pictures_of,
    text_of,
)

UNRATED = "fewer than two rated answers"


@dataclass(frozen=True)
class _Rated:
    model: str
    text: str
    ratings: dict[str, float]

    @property
    def score(self) -> float:
        return sum(self.ratings.values()) / len(self.ratings)


def _fits(columns: Columns) -> bool:
    return holds(columns, "prompt", "completions")


def _read(columns: Columns, config: ReadConfig) -> Drafts:
    asked, pictures = text_of(columns, "prompt"), pictures_of(columns, "image", "images", "img", "img_path")
    answers = [answer for one in _completions(columns) if (answer := _rated(one, config.aspects)) is not None]
    if len(answers) < 2:
        yield Dropped(UNRATED)
        return
    for better, worse in _compared(answers, config.ranked):
        if better.score == worse.score:
            yield Dropped(TIE)
            continue
        origin = known(columns, "id", "img_path") | _told("chosen", better) | _told("rejected", worse)
        yield from pair_drafts(question(asked, better.text), question(asked, worse.text), pictures, origin)


def _compared(answers: list[_Rated], ranked: str) -> Iterator[tuple[_Rated, _Rated]]:
    """The better answer first; among equals the one that the row names first."""
    ordered = sorted(answers, key=lambda answer: -answer.score)
    worst = min(ordered, key=lambda answer: answer.score)
    yield from combinations(ordered, 2) if ranked == "all" else [(ordered[0], worst)]


def _completions(columns: Columns) -> list[Mapping[str, Any]]:
    """Structs, whether as a list of them or as `datasets` keeps a sequence of structs: a struct of lists."""
    value = columns.get("completions")
    if isinstance(value, Mapping) and value and all(isinstance(part, list) for part in value.values()):
        if len({len(part) for part in value.values()}) > 1:
            raise BadRow(f"completions = {shorten(value)} has lists of several lengths")
        value = [dict(zip(value, parts, strict=True)) for parts in zip(*value.values(), strict=True)]
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise BadRow(f"completions = {shorten(value)} is not a list of answers")
    return value


def _rated(completion: Mapping[str, Any], aspects: tuple[str, ...]) -> _Rated | None:
    """The answer with its ratings; None where one is missing or no number, such as `N/A`."""
    annotations, ratings = completion.get("annotations"), {}
    for aspect in aspects:
        given = annotations.get(aspect) if isinstance(annotations, Mapping) else None
        try:
            ratings[aspect] = float(given["Rating"] if isinstance(given, Mapping) else "")
        except (KeyError, TypeError, ValueError):
            return None
        if not 0 <= ratings[aspect] < float("inf"):
            return None
    return _Rated(str(completion.get("model") or ""), text_of(completion, "response"), ratings)


def _told(side: str, answer: _Rated) -> dict[str, Any]:
    return {
        f"{side}_model": answer.model,
        f"{side}_score": round(answer.score, 6),
        f"{side}_ratings": answer.ratings,
    }


VLFEEDBACK = Layout("vlfeedback", "several rated answers to a prompt (JSONL, Parquet)", _fits, _read)
