"""Sample directories: `samples.jsonl` with image files beside it, checked row by row while they stream past.

A directory of pairs serves too: its prompts with the chosen answers as references.

It does not decode images (`images.open_image` does, where they are used) and does not shuffle or split.
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
    """The JSONL file meant by a directory of samples or of pairs, or by the file itself."""
    if not place.is_dir():
        return place
    return place / (PAIRS if _holds_pairs(place) else SAMPLES)


def read_samples(place: Path, *, require_reference: bool = False) -> Iterator[Sample]:
    """The samples of a directory or a JSONL file, in order. Image paths stay relative to the file's folder.

    Memory holds the ids alone, to find one that occurs twice.

    Raises:
        InputError: no such file (at the call); a bad row, an id twice, an empty prompt, an image path that leaves the
            folder or names no file, or, with `require_reference`, an empty reference.
    """
    path = samples_file(place)
    if place.is_dir() and _holds_pairs(place):
        return _checked(enumerate(map(_from_pair, read_pairs(place)), 1), path, require_reference)
    return _checked(numbered_rows(path, Sample), path, require_reference)


def write_samples(directory: Path, samples: Iterable[Sample]) -> int:
    """Write `samples.jsonl` in one piece, checked as `read_samples` does; the image files must be there already."""
    path = directory / SAMPLES
    return write_rows(path, _checked(enumerate(samples, 1), path, False))


def row_place(place: Path, row_id: str) -> str:
    """Where the row of that id stands, as errors name it: file and line; the file alone where it is not found."""
    path = samples_file(place)
    if place.is_dir() and not (place / SAMPLES).exists():
        return pair_place(place, row_id)
    found = (number for number, sample in numbered_rows(path, Sample) if sample.id == row_id)
    return f"{path}{f' line {number}' if (number := next(found, 0)) else ''}"


def _holds_pairs(directory: Path) -> bool:
    """A directory without samples whose pairs are to be worked on."""
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
    """The `index`-th (from 0) of `count` parts."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`2/8` is the third of eight.

        Raises:
            InputError: it has another form, or the index is not below the count.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise InputError(f"shard {text!r} must have the form INDEX/COUNT, such as 0/4 to 3/4")
        return cls(int(index), int(count))

    def of(self, rows: Iterable[T]) -> Iterator[T]:
        """Every `count`-th row from the `index`-th on: even parts of a stream of unknown length."""
        return (row for number, row in enumerate(rows) if number % self.count == self.index)

    def stretch_of(self, rows: Sequence[T]) -> Sequence[T]:
        """Rows that stand together, as questions on one picture do; the parts in order are the whole."""
        return rows[len(rows) * self.index // self.count : len(rows) * (self.index + 1) // self.count]
