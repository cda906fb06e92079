"""The monitored numbers of a log row, each on a fixed grid so that ranks can be stored as counts.

Grids do not depend on the data: a fitted transform would make the baseline's numbers dependent. `betting` turns ranks
into alarms.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from sightline.records.ratings import BUCKETS, LoggedPicture, LoggedRequest, TextStats

HALLUCINATION = "hallucination"


@dataclass(frozen=True)
class Measure:
    """A number of a row, or None. `steps` is the number of grid steps per unit of `on_grid(value)`.

    `once` marks picture measures: each picture counts once.
    """

    name: str
    title: str
    kind: Literal["number", "share"]
    value: Callable[[LoggedRequest], float | None]
    on_grid: Callable[[float], float] = float
    steps: int = 1
    once: bool = False

    def grid(self, value: float) -> int:
        """The grid step of a value."""
        return round(self.on_grid(value) * self.steps)


def _log2(value: float) -> float:
    return math.log2(1 + value)


def _picture_value(look: Callable[[LoggedPicture], float]) -> Callable[[LoggedRequest], float | None]:
    return lambda row: look(row.images[0]) if row.images else None


def _as_share(value: bool | None) -> float | None:
    return None if value is None else float(value)


MEASURES: tuple[Measure, ...] = (
    Measure("prompt_words", "Words of a prompt", "number", lambda row: float(row.prompt_stats.words), _log2, 16),
    Measure(
        "picture_size",
        "Side of a picture, pixels",
        "number",
        _picture_value(lambda one: math.sqrt(one.width * one.height)),
        _log2,
        8,
        once=True,
    ),
    Measure("brightness", "Brightness", "share", _picture_value(lambda one: one.brightness), steps=256, once=True),
    Measure("contrast", "Contrast", "share", _picture_value(lambda one: one.contrast), steps=256, once=True),
    Measure("saturation", "Saturation", "share", _picture_value(lambda one: one.saturation), steps=256, once=True),
    Measure("detail", "Detail", "share", _picture_value(lambda one: one.detail), steps=1024, once=True),
    Measure(
        "answer_words",
        "Words of an answer",
        "number",
        lambda row: None if row.answer_stats is None else float(row.answer_stats.words),
        _log2,
        16,
    ),
    Measure("yes", "Yes among yes and no", "share", lambda row: _as_share(row.yes)),
    Measure("refusals", "Refusals", "share", lambda row: _as_share(row.refused)),
    Measure(
        "cut_off",
        "Answers cut off",
        "share",
        lambda row: None if row.finished is None else float(not row.finished),
    ),
)


def vocabulary(known: Iterable[TextStats]) -> Measure:
    """The mean surprise of a prompt's words under baseline prompts, in nats per word, over hashed buckets.

    Prompts used for fitting must not be ranked as well.
    """
    counts = [1.0] * BUCKETS  # Laplace's rule
    for wording in known:
        for bucket, count in wording.buckets.items():
            counts[bucket] += count
    return vocabulary_from_counts(counts)


def vocabulary_from_counts(counts: list[float]) -> Measure:
    """As `vocabulary`, from bucket counts with one added to each."""
    total = sum(counts)
    surprise = [-math.log(count / total) for count in counts]

    def value(row: LoggedRequest) -> float | None:
        words = sum(row.prompt_stats.buckets.values())
        if not words:
            return None
        return sum(surprise[bucket] * count for bucket, count in row.prompt_stats.buckets.items()) / words

    return Measure("vocabulary", "Surprise at a prompt's words, nats", "number", value, steps=32)


def hallucination() -> Measure:
    """The judge's verdict; its values are computed outside the row."""
    return Measure(HALLUCINATION, "Hallucinating answers (sampled, judged)", "share", lambda _: None)
