"""A desk where raters sit: which item each sees, in which order its answers stand, and what of a form is kept.

It knows no page and no server; what it gives and takes is plain JSON. Answers stand in an order that is drawn for each
rater and item from the seed, and it is written into the row: nobody can learn that the better one is always left.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from sightline.config import Config
from sightline.config.problems import describe
from sightline.data.labels import RaterFile, rater_name
from sightline.data.texts import pieces, spans_to_words, words_to_spans
from sightline.errors import InputError
from sightline.records import IMAGE, AnswerAnnotation, LabelItem, Rating, Row


class LabelConfig(Config):
    """Settings of a labels directory, fixed when it is made, so that all its rows answer the same questions."""

    criteria: tuple[str, ...] = Field(default=(), max_length=9, description="what each answer is graded by")
    lowest: int = Field(default=1, ge=0, le=8, description="the worst grade")
    highest: int = Field(default=5, ge=1, le=9, description="the best grade")
    marks: bool = Field(default=True, description="words that are not in the picture can be marked")
    corrections: bool = Field(default=True, description="an answer can be put right")
    limit: int | None = Field(default=None, ge=1, description="only the first so many items")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        if len(set(self.criteria)) < len(self.criteria) or not all(name.strip() for name in self.criteria):
            raise ValueError("criteria must have names, each another")
        return self


LONGEST = 20_000  # characters of a correction
DAY = 86_400.0

_TO_VERDICT: dict[str, tuple[str, str]] = {"left": ("first", "second"), "right": ("second", "first")}


class SideForm(Row):
    """What was noted on the answer on one side of the screen; marked words by number."""

    marks: tuple[int, ...] = Field(default=(), max_length=20_000)
    correction: str | None = Field(default=None, max_length=LONGEST)
    grades: dict[str, int] = Field(default_factory=dict, max_length=9)


class Form(Row):
    """What a page sends for one item; sides as they stood on the screen, the left (or upper) one first."""

    rater: str
    item: str
    verdict: Literal["left", "right", "tie", "skip"]
    sides: tuple[SideForm, SideForm] = (SideForm(), SideForm())
    seconds: float | None = None


def is_swapped(seed: int, rater: str, item: str) -> bool:
    """Whether the second answer stands first: a fair coin for each (seed, rater, item)."""
    return bool(hashlib.sha256(f"{seed}\0{rater}\0{item}".encode()).digest()[0] & 1)


def rating_of(form: Form, item: LabelItem, config: LabelConfig, swapped: bool) -> Rating:
    """The row of a form, in the item's own order.

    Raises:
        InputError: a word, criterion or grade that the item or the config lacks.
    """
    order = (item.second, item.first) if swapped else (item.first, item.second)
    noted = [
        _noted(side, answer.text, config, f"item {item.id!r}") for side, answer in zip(form.sides, order, strict=True)
    ]
    first, second = reversed(noted) if swapped else noted
    verdict = _TO_VERDICT[form.verdict][swapped] if form.verdict in _TO_VERDICT else form.verdict
    seconds = form.seconds if form.seconds is not None and math.isfinite(form.seconds) else None
    return Rating(
        item=item.id,
        rater=form.rater,
        verdict=verdict,  # type: ignore[arg-type]  # pydantic looks
        swapped=swapped,
        first=first,
        second=second,
        seconds=None if seconds is None else round(min(max(seconds, 0.0), DAY), 1),
    )


@dataclass
class LabelingSession:
    """The items of one labels directory, and the raters who were there since the start.

    `picture` gives a picture as something that a page can show, or None where it cannot be opened.
    """

    folder: Path
    items: Sequence[LabelItem]
    config: LabelConfig
    seed: int
    picture: Callable[[Path], str | None]
    raters: dict[str, RaterFile] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def enter(self, name: str) -> dict[str, Any]:
        """The view of a rater who sits down: his first item without a word of his."""
        with self.lock:
            file = self._file(name)
            torn = f"A line that was cut off was moved to {file.torn.name}." if file.torn else ""
            return {**self._view(file, self._next_open(file, 0)), "told": torn}

    def turn_to(self, name: str, place: int) -> dict[str, Any]:
        """The view of the item at a place, counted from 0; places beyond the ends are the ends."""
        with self.lock:
            return self._view(self._file(name), min(max(place, 0), len(self.items) - 1))

    def next_open(self, name: str, place: int) -> dict[str, Any]:
        """The view of the next item, from a place on, that the rater has not spoken of."""
        with self.lock:
            file = self._file(name)
            return self._view(file, self._next_open(file, max(place, 0)))

    def keep(self, form: Form) -> dict[str, Any]:
        """Put a form on disk; then the view of the next open item."""
        with self.lock:
            place = next((place for place, item in enumerate(self.items) if item.id == form.item), None)
            if place is None:
                raise InputError(f"there is no item {form.item[:100]!r}; reload the page")
            file = self._file(form.rater)
            item = self.items[place]
            swapped = is_swapped(self.seed, file.rater, item.id)
            file.add(rating_of(form.model_copy(update={"rater": file.rater}), item, self.config, swapped))
            return self._view(file, self._next_open(file, place + 1))

    def _file(self, name: str) -> RaterFile:
        rater = rater_name(name)
        if rater not in self.raters:
            self.raters[rater] = RaterFile.open(self.folder, rater)
        return self.raters[rater]

    def _next_open(self, file: RaterFile, place: int) -> int | None:
        around = [*range(place, len(self.items)), *range(min(place, len(self.items)))]
        return next((number for number in around if self.items[number].id not in file.latest), None)

    def _view(self, file: RaterFile, place: int | None) -> dict[str, Any]:
        """What a page shows: how far the rater is, and the item at a place; none where all is done."""
        seen = {
            "rater": file.rater,
            "count": len(self.items),
            "done": sum(item.id in file.latest for item in self.items),
            "config": self.config.model_dump(mode="json"),
            "item": None,
        }
        if place is None:
            return seen
        item = self.items[place]
        swapped = is_swapped(self.seed, file.rater, item.id)
        rating = file.latest.get(item.id)
        sides = [
            (item.first.text, rating.first if rating else AnswerAnnotation()),
            (item.second.text, rating.second if rating else AnswerAnnotation()),
        ]
        return seen | {
            "item": {
                "id": item.id,
                "place": place,
                "images": [self.picture(self.folder / image) for image in item.images],
                "history": [{"role": turn.role, "text": _told(turn.text)} for turn in item.history],
                "prompt": _told(item.prompt),
                "sides": [_side(text, noted) for text, noted in (reversed(sides) if swapped else sides)],
                "verdict": None if rating is None else _shown(rating.verdict, swapped),
            }
        }


def form_of(sent: object) -> Form:
    """A form as it came in; an InputError where it is none."""
    try:
        return Form.model_validate(sent)
    except ValidationError as error:
        raise InputError(f"the form cannot be kept: {describe(error, Form)}; reload the page") from error


def _noted(side: SideForm, text: str, config: LabelConfig, where: str) -> AnswerAnnotation:
    for name, grade in side.grades.items():
        if name not in config.criteria or not config.lowest <= grade <= config.highest:
            raise InputError(
                f"{where}: grade {grade} of {name[:60]!r} is none of {config.lowest} to {config.highest} by "
                f"{', '.join(config.criteria) or 'no criterion'}; reload the page"
            )
    if side.marks and not config.marks:
        raise InputError(f"{where}: words are not marked here; reload the page")
    correction = (side.correction or "").strip()
    if correction and not config.corrections:
        raise InputError(f"{where}: answers are not put right here; reload the page")
    try:
        marks = words_to_spans(text, side.marks)
    except ValueError as error:
        raise InputError(f"{where}: {error}; reload the page") from error
    changed = correction and correction != text.strip()
    return AnswerAnnotation(marks=marks, correction=correction if changed else None, grades=side.grades)


def _side(text: str, noted: AnswerAnnotation) -> dict[str, Any]:
    return {
        "text": text,
        "pieces": [[piece.text, piece.word is not None] for piece in pieces(text)],
        "marks": spans_to_words(text, noted.marks),
        "correction": noted.correction,
        "grades": noted.grades,
    }


def _shown(verdict: str, swapped: bool) -> str:
    """A verdict in the order of the screen."""
    back = {names[swapped]: side for side, names in _TO_VERDICT.items()}
    return back.get(verdict, verdict)


def _told(text: str) -> str:
    """A text without the marks of pictures, which stand beside it."""
    return text.replace(IMAGE, " ").strip()
