"""Label directories: `items.jsonl` with its pictures, and one append-only file per rater under `raters/`.

`apps.label` and `apps.chat` fill such a directory; `builders.from_labels` and `evals.agreement` read it.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.records.ratings import LabelItem, Rating
from sightline.records.rows import Grade
from sightline.records.store import append_rows, numbered_rows, read_rows, set_torn_tail_aside

ITEMS, RATERS = "items.jsonl", "raters"

_NAME = re.compile(r"\w[\w .-]{0,39}")
#: File names reserved on Windows, to which a label directory may be copied.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")

Ratings = Mapping[str, Mapping[str, Rating]]


def is_labels(place: Path) -> bool:
    """Whether a directory holds label items, rated or not."""
    return (place / ITEMS).is_file()


def rater_name(text: str) -> str:
    """The normalized name of a rater's file: at most 40 lowercase letters, digits, spaces, dots and dashes.

    Raises:
        InputError: the name is empty or has other characters.
    """
    name = " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(". ")
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        raise InputError(
            f"rater {text[:60]!r} is not a valid name; use 1 to 40 letters, digits, spaces, dots or dashes, a letter"
            " first"
        )
    return name


def read_items(directory: Path) -> dict[str, LabelItem]:
    """The items of a directory by id, in file order.

    Raises:
        InputError: there are no items, a row is invalid, or an id is repeated.
    """
    path = directory / ITEMS
    if not path.is_file():
        raise InputError(f"{directory} holds no {ITEMS}; create it with `sightline label` or `sightline chat`")
    items: dict[str, LabelItem] = {}
    for line, item in numbered_rows(path, LabelItem, allow_torn_tail=True):
        if not item.id or item.id in items:
            raise InputError(f"{path} line {line}: id {shorten(item.id)} is empty or occurs twice; give it another")
        items[item.id] = item
    return items


def read_ratings(directory: Path) -> dict[str, dict[str, Rating]]:
    """The latest rating of each item by each rater, by rater (sorted by name), then by item.

    Raises:
        InputError: there are no ratings, or a row is invalid.
    """
    files = rater_files(directory)
    if not files:
        raise InputError(f"{directory} has no ratings under {RATERS}/; rate it with `sightline label` first")
    return {path.stem: _latest(path) for path in files}


def rater_files(directory: Path) -> list[Path]:
    """The raters' files, sorted by name."""
    return sorted((directory / RATERS).glob("*.jsonl"))


def read_grades(directory: Path) -> Iterator[Grade]:
    """All grades, one row per answer and rater, in the order of items and raters.

    Raises:
        InputError: as in `read_items` and `read_ratings`.
    """
    items, ratings = read_items(directory), read_ratings(directory)
    for item in items.values():
        for rater, theirs in ratings.items():
            rating = theirs.get(item.id)
            if rating is None:
                continue
            for answer, noted in ((item.first, rating.first), (item.second, rating.second)):
                if noted.grades:
                    yield Grade(
                        sample_id=item.sample_id,
                        answer_id=answer.id,
                        rater=rater,
                        scores={name: float(grade) for name, grade in noted.grades.items()},
                    )


@dataclass
class RaterFile:
    """A rater's open file; `latest` has the ratings that count so far, by item."""

    path: Path
    rater: str
    latest: dict[str, Rating] = field(default_factory=dict)
    torn: Path | None = None

    @classmethod
    def open(cls, directory: Path, name: str) -> "RaterFile":
        """Open or create a rater's file; a torn last line is moved to the file `torn`.

        Raises:
            InputError: the name or a row is invalid.
        """
        rater = rater_name(name)
        path = directory / RATERS / f"{rater}.jsonl"
        if not path.exists():
            return cls(path, rater)
        torn = set_torn_tail_aside(path)
        return cls(path, rater, _latest(path), torn)

    def add(self, rating: Rating) -> None:
        """Write a rating to disk, then count it."""
        append_rows(self.path, [rating])
        self.latest[rating.item] = rating


def _latest(path: Path) -> dict[str, Rating]:
    return {rating.item: rating for rating in read_rows(path, Rating, allow_torn_tail=True)}
