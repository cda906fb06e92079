"""A directory of labels: `items.jsonl` with its pictures, and one file a rater under `raters/`, appended row by row.

It checks names and rows and counts nothing; pages that fill such a directory are in `apps`, what is made of it in
`builders.from_labels`, and how far raters agree is `evals.agreement`.
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
#: Names that some systems keep for devices; a folder of labels may be carried to one.
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")

Ratings = Mapping[str, Mapping[str, Rating]]


def is_labels(place: Path) -> bool:
    """Whether a directory holds items to label, rated or not."""
    return (place / ITEMS).is_file()


def rater_name(text: str) -> str:
    """The name that a rater's file goes by: small letters, digits, spaces, dots, dashes, at most 40 of them.

    Raises:
        InputError: nothing, or something else.
    """
    name = " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(". ")
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        raise InputError(
            f"rater {text[:60]!r} is no name; use 1 to 40 letters, digits, spaces, dots or dashes, a letter first"
        )
    return name


def read_items(directory: Path) -> dict[str, LabelItem]:
    """The items of a directory by id, in their order.

    Raises:
        InputError: there are none, a bad row, or an id twice.
    """
    path = directory / ITEMS
    if not path.is_file():
        raise InputError(f"{directory} holds no {ITEMS}; make it with `sightline label` or `sightline chat`")
    items: dict[str, LabelItem] = {}
    for line, item in numbered_rows(path, LabelItem, allow_torn_tail=True):
        if not item.id or item.id in items:
            raise InputError(f"{path} line {line}: id {shorten(item.id)} is empty or occurs twice; give it another")
        items[item.id] = item
    return items


def read_ratings(directory: Path) -> dict[str, dict[str, Rating]]:
    """The word that counts of each rater on each item, by rater (in the order of names), then by item.

    Raises:
        InputError: nobody rated anything, or a bad row.
    """
    files = rater_files(directory)
    if not files:
        raise InputError(f"{directory} holds no file under {RATERS}/; nobody has rated anything yet")
    return {path.stem: _latest(path) for path in files}


def rater_files(directory: Path) -> list[Path]:
    """The raters' files, in the order of their names."""
    return sorted((directory / RATERS).glob("*.jsonl"))


def read_grades(directory: Path) -> Iterator[Grade]:
    """Every grade that a rater gave, one row an answer and rater, in the order of items and raters.

    Raises:
        InputError: as `read_items` and `read_ratings`.
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
    """One rater's file while it is written: what counts so far, by item."""

    path: Path
    rater: str
    latest: dict[str, Rating] = field(default_factory=dict)
    torn: Path | None = None

    @classmethod
    def open(cls, directory: Path, name: str) -> "RaterFile":
        """Go on with a rater's file, or begin one; a last line that was cut off is set aside in `torn`.

        Raises:
            InputError: no name of a rater, or a bad row.
        """
        rater = rater_name(name)
        path = directory / RATERS / f"{rater}.jsonl"
        if not path.exists():
            return cls(path, rater)
        torn = set_torn_tail_aside(path)
        return cls(path, rater, _latest(path), torn)

    def add(self, rating: Rating) -> None:
        """Put a row on disk, and then count it."""
        append_rows(self.path, [rating])
        self.latest[rating.item] = rating


def _latest(path: Path) -> dict[str, Rating]:
    return {rating.item: rating for rating in read_rows(path, Rating, allow_torn_tail=True)}
