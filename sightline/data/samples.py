"""Sample directories: `samples.jsonl` with image files beside it, streamed and checked row by row.

A directory of pairs is read as samples too, with the chosen answers as references. Images are not decoded here
(`images.open_image` does that), and rows are neither shuffled nor split.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sightline.config.problems import shorten
from sightline.data.images import image_path
from sightline.data.preference_dataset import PAIRS, pair_place, read_pairs
from sightline.errors import InputError
from sightline.records.rows import Pair, Sample
from sightline.records.store import numbered_rows, write_rows

SAMPLES = "samples.jsonl"


def samples_file(place: Path) -> Path:
    """The JSONL file of a directory of samples or pairs; a file is returned unchanged."""
    if not place.is_dir():
        return place
    return place / (PAIRS if _holds_pairs(place) else SAMPLES)


def read_samples(place: Path, *, require_reference: bool = False) -> Iterator[Sample]:
    """The samples of a directory or a JSONL file, in order. Image paths stay relative to the file's folder.

    Memory holds only the ids, to find duplicates.

    Raises:
        InputError: the file is missing (raised at the call); a row is invalid, an id is repeated, a prompt is empty, an
            image path leaves the folder or names no file, or, with `require_reference`, a reference is empty.
    """
    path = samples_file(place)
    if place.is_dir() and _holds_pairs(place):
        return _checked(enumerate(map(_from_pair, read_pairs(place)), 1), path, require_reference)
    return _checked(numbered_rows(path, Sample), path, require_reference)


def write_samples(directory: Path, samples: Iterable[Sample]) -> int:
    """Write `samples.jsonl` atomically, with the checks of `read_samples`; the image files must already exist."""
    path = directory / SAMPLES
    return write_rows(path, _checked(enumerate(samples, 1), path, False))


def row_place(place: Path, row_id: str) -> str:
    """The location of a row, for errors: file and line; only the file if the id is not found."""
    path = samples_file(place)
    if place.is_dir() and not (place / SAMPLES).exists():
        return pair_place(place, row_id)
    found = (number for number, sample in numbered_rows(path, Sample) if sample.id == row_id)
    return f"{path}{f' line {number}' if (number := next(found, 0)) else ''}"


def _holds_pairs(directory: Path) -> bool:
    """Whether a directory has pairs and no samples."""
    return not (directory / SAMPLES).exists() and (
        (directory / PAIRS).exists() or any(directory.glob("data/*.parquet"))
    )


def _from_pair(pair: Pair) -> Sample:
    truth = pair.provenance.get("truth")
    return Sample(
        id=pair.id,
        images=pair.images,
        media=pair.media,
        history=pair.history,
        prompt=pair.prompt,
        reference=pair.chosen,
        task=str(pair.provenance.get("task", "")),
        cluster=pair.cluster,
        truth={**(truth if isinstance(truth, dict) else {}), "rejected": pair.rejected},
    )


def _checked(rows: Iterable[tuple[int, Sample]], path: Path, require_reference: bool) -> Iterator[Sample]:
    seen: set[str] = set()
    for line, sample in rows:
        where = f"{path} line {line} (id {shorten(sample.id)})"
        if not sample.id or sample.id in seen:
            raise InputError(
                f"{where}: {'the id is empty' if not sample.id else 'this id occurs twice'}; give it another"
            )
        if not sample.prompt.strip():
            raise InputError(f"{where}: the prompt is empty; write one or delete the row")
        if require_reference and not (sample.reference or "").strip():
            raise InputError(f"{where}: the reference is empty and this command needs one; write it or delete the row")
        for name in sample.images:
            image_path(path.parent, name, where)
        seen.add(sample.id)
        yield sample


T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 0) of `count`."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse `INDEX/COUNT`: `2/8` is the third of eight.

        Raises:
            InputError: the text has another form, or the index is not below the count.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise InputError(f"shard {text!r} must have the form INDEX/COUNT, such as 0/4 to 3/4")
        return cls(int(index), int(count))

    def every_nth(self, rows: Iterable[T]) -> Iterator[T]:
        """Every `count`-th row from row `index` on: even parts of a stream of unknown length."""
        return (row for number, row in enumerate(rows) if number % self.count == self.index)

    def contiguous(self, rows: Sequence[T]) -> Sequence[T]:
        """A contiguous part, so that questions about one picture stay together; the parts in order are the whole."""
        return rows[len(rows) * self.index // self.count : len(rows) * (self.index + 1) // self.count]
