"""A labeling session: the item each rater sees, the order of its answers, and the forms that are saved.

Independent of page and server; input and output are plain JSON. The order of the answers is drawn from the seed for
each rater and item and saved in the row, so that position gives no hint about quality.
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
from sightline.data.texts import spans_to_words, split_text, words_to_spans
from sightline.errors import InputError
from sightline.records import IMAGE, AnswerAnnotation, LabelItem, Rating, Row


class LabelConfig(Config):
    """Settings of a labels directory, fixed when it is created, so that all its rows are comparable."""

    criteria: tuple[str, ...] = Field(default=(), max_length=9, description="criteria by which each answer is graded")
    lowest: int = Field(default=1, ge=0, le=8, description="worst grade")
    highest: int = Field(default=5, ge=1, le=9, description="best grade")
    marks: bool = Field(default=True, description="let raters mark words that are not in the picture")
    corrections: bool = Field(default=True, description="let raters correct an answer")
    limit: int | None = Field(default=None, ge=1, description="use only the first N items")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        if len(set(self.criteria)) < len(self.criteria) or not all(name.strip() for name in self.criteria):
            raise ValueError("criteria must have distinct, non-empty names")
        return self


LONGEST = 20_000  # characters of a correction
DAY = 86_400.0

_TO_VERDICT: dict[str, tuple[str, str]] = {"left": ("first", "second"), "right": ("second", "first")}


class SideForm(Row):
    """The annotations of the answer on one side of the screen; marked words by number."""

    marks: tuple[int, ...] = Field(default=(), max_length=20_000)
    correction: str | None = Field(default=None, max_length=LONGEST)
    grades: dict[str, int] = Field(default_factory=dict, max_length=9)


class Form(Row):
    """The form a page sends for one item; sides in screen order, the left (or upper) one first."""

    rater: str
    item: str
    verdict: Literal["left", "right", "tie", "skip"]
    sides: tuple[SideForm, SideForm] = (SideForm(), SideForm())
    seconds: float | None = None


def is_swapped(seed: int, rater: str, item: str) -> bool:
    """Whether the second answer is shown first: a fair coin for each (seed, rater, item)."""
    return bool(hashlib.sha256(f"{seed}\0{rater}\0{item}".encode()).digest()[0] & 1)


def to_rating(form: Form, item: LabelItem, config: LabelConfig, swapped: bool) -> Rating:
    """Convert a form to a row in the item's own order.

    Raises:
        InputError: a word, criterion or grade that the item or the config does not have.
    """
    order = (item.second, item.first) if swapped else (item.first, item.second)
    noted = [
        _to_annotation(side, answer.text, config, f"item {item.id!r}")
        for side, answer in zip(form.sides, order, strict=True)
    ]
    first, second = reversed(noted) if swapped else noted
    verdict = _TO_VERDICT[form.verdict][swapped] if form.verdict in _TO_VERDICT else form.verdict
    seconds = form.seconds if form.seconds is not None and math.isfinite(form.seconds) else None
    return Rating(
        item=item.id,
        rater=form.rater,
        verdict=verdict,  # type: ignore[arg-type]  # validated by pydantic
        swapped=swapped,
        first=first,
        second=second,
        seconds=None if seconds is None else round(min(max(seconds, 0.0), DAY), 1),
    )


@dataclass
class LabelingSession:
    """The items of one labels directory, and the files of the raters seen so far.

    `picture` converts a picture for the page, or returns None if it cannot be opened.
    """

    folder: Path
    items: Sequence[LabelItem]
    config: LabelConfig
    seed: int
    picture: Callable[[Path], str | None]
    raters: dict[str, RaterFile] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def enter(self, name: str) -> dict[str, Any]:
        """The view at the start: the rater's first unrated item."""
        with self.lock:
            file = self._file(name)
            torn = f"Moved a truncated line to {file.torn.name}." if file.torn else ""
            return {**self._view(file, self._next_open(file, 0)), "notice": torn}

    def turn_to(self, name: str, place: int) -> dict[str, Any]:
        """The view of the item at a position from 0; positions are clamped to the ends."""
        with self.lock:
            return self._view(self._file(name), min(max(place, 0), len(self.items) - 1))

    def next_open(self, name: str, place: int) -> dict[str, Any]:
        """The view of the rater's next unrated item from a position on."""
        with self.lock:
            file = self._file(name)
            return self._view(file, self._next_open(file, max(place, 0)))

    def keep(self, form: Form) -> dict[str, Any]:
        """Save a form; returns the view of the next unrated item."""
        with self.lock:
            place = next((place for place, item in enumerate(self.items) if item.id == form.item), None)
            if place is None:
                raise InputError(f"there is no item {form.item[:100]!r}; reload the page")
            file = self._file(form.rater)
            item = self.items[place]
            swapped = is_swapped(self.seed, file.rater, item.id)
            file.add(to_rating(form.model_copy(update={"rater": file.rater}), item, self.config, swapped))
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
        """The rater's progress and the item at a position; no item when all are rated."""
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
                "history": [{"role": turn.role, "text": _without_image_marks(turn.text)} for turn in item.history],
                "prompt": _without_image_marks(item.prompt),
                "sides": [_side(text, noted) for text, noted in (reversed(sides) if swapped else sides)],
                "verdict": None if rating is None else _to_screen(rating.verdict, swapped),
            }
        }


def parse_form(sent: object) -> Form:
    """Validate a form; InputError if it is invalid."""
    try:
        return Form.model_validate(sent)
    except ValidationError as error:
        raise InputError(f"the form cannot be saved: {describe(error, Form)}; reload the page") from error


def _to_annotation(side: SideForm, text: str, config: LabelConfig, where: str) -> AnswerAnnotation:
    for name, grade in side.grades.items():
        if name not in config.criteria or not config.lowest <= grade <= config.highest:
            raise InputError(
                f"{where}: grade {grade} for {name[:60]!r} is not one of {config.lowest} to {config.highest} for "
                f"{', '.join(config.criteria) or 'no criterion'}; reload the page"
            )
    if side.marks and not config.marks:
        raise InputError(f"{where}: marking words is disabled; reload the page")
    correction = (side.correction or "").strip()
    if correction and not config.corrections:
        raise InputError(f"{where}: corrections are disabled; reload the page")
    try:
        marks = words_to_spans(text, side.marks)
    except ValueError as error:
        raise InputError(f"{where}: {error}; reload the page") from error
    changed = correction and correction != text.strip()
    return AnswerAnnotation(marks=marks, correction=correction if changed else None, grades=side.grades)


def _side(text: str, noted: AnswerAnnotation) -> dict[str, Any]:
    return {
        "text": text,
        "pieces": [[piece.text, piece.word is not None] for piece in split_text(text)],
        "marks": spans_to_words(text, noted.marks),
        "correction": noted.correction,
        "grades": noted.grades,
    }


def _to_screen(verdict: str, swapped: bool) -> str:
    """A verdict in screen order."""
    back = {names[swapped]: side for side, names in _TO_VERDICT.items()}
    return back.get(verdict, verdict)


def _without_image_marks(text: str) -> str:
    """The text without image markers; pictures are shown beside it."""
    return text.replace(IMAGE, " ").strip()
