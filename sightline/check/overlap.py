"""Which rows meet a benchmark: by picture (bytes, or hashes that survive another size), by COCO id, by question."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.check.columns import U64, ImageColumns, Ints, Likeness, Rows, integers, links, numbers
from sightline.check.pictures import Look
from sightline.data.images import FORMATS, coco_id
from sightline.data.texts import digest, normalize
from sightline.errors import InputError
from sightline.records import Sample
from sightline.records.decoding import require_text

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
_LISTS = (".jsonl", ".json")
_IMAGE, _QUESTION = ("image", "images", "image_path", "img"), ("text", "question", "prompt")


@dataclass(frozen=True)
class BenchmarkItem:
    """One question, or one picture: the name by which a list calls it, and the file where it is there."""

    name: str = ""
    path: Path | None = None
    question: str = ""


@dataclass(frozen=True)
class Against:
    """A benchmark by its name, how to get its items, and the file or folder it is read from, where it is one."""

    name: str
    items: Callable[[], Iterable[BenchmarkItem]]
    place: Path | None = None


def against_path(place: Path) -> Against:
    """A folder or file as a benchmark.

    Raises:
        InputError: it does not exist, or is a file of another kind; when read, a line that is no JSON object.
    """
    if not place.is_dir() and not (place.is_file() and place.suffix.lower() in (*_SUFFIXES, *_LISTS)):
        raise InputError(
            f"benchmark {place} is no folder, no image ({', '.join(FORMATS)}) and no {' or '.join(_LISTS)} file; "
            "name one of these"
        )
    return Against(place.name, lambda: _items(place), place)


def against_samples(name: str, folder: Callable[[], Path], samples: Callable[[], Iterable[Sample]]) -> Against:
    """A benchmark's samples; `folder`, to which images are relative, is asked for after the samples were begun."""

    def items() -> Iterator[BenchmarkItem]:
        for sample in samples():
            yield BenchmarkItem(question=sample.prompt)
            yield from (BenchmarkItem(image, folder() / image) for image in sample.images)

    return Against(name, items)


def _items(place: Path) -> Iterator[BenchmarkItem]:
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    for path in files:
        if path.suffix.lower() in _SUFFIXES:
            yield BenchmarkItem(path.name, path)
        elif path.suffix.lower() in _LISTS and path.name != "manifest.json":
            yield from _listed(path)


def _listed(path: Path) -> Iterator[BenchmarkItem]:
    for where, row in _objects(path):
        question = next((row[key] for key in _QUESTION if isinstance(row.get(key), str)), "")
        named = next((row[key] for key in _IMAGE if row.get(key)), ())
        names = [named] if isinstance(named, str) else named
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{where}: the image is {str(names)[:60]!r} and no name; name another file")
        yield BenchmarkItem(question=question)
        for name in names:
            file = path.parent / name
            yield BenchmarkItem(name, file if "\0" not in name and file.is_file() else None)


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON objects of a file, each with its place."""
    require_text(path)
    with path.open("rb") as file:
        is_list = file.read(1) == b"["
    if is_list:
        places = ((f"{path} entry {number}", value) for number, value in enumerate(_json(path.read_bytes(), path), 1))
    else:
        with path.open("rb") as file:
            lines = [(f"{path} line {number}", line) for number, line in enumerate(file, 1) if line.strip()]
        places = ((where, _json(line, where)) for where, line in lines)
    for where, value in places:
        if not isinstance(value, dict):
            raise InputError(f"{where}: not a JSON object; a benchmark's list holds one a line, with 'image' or 'text'")
        yield where, value


def _json(text: bytes, where: object) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); name a file of one JSON object a line") from error


_TOGETHER = 256  # pictures looked at between two of which nothing is kept
LookAll = Callable[[Sequence[Path | bytes]], Iterable[Look]]
Found = tuple[int, str, str, str]


@dataclass
class Index:
    """What is known of a benchmark: its pictures, which may be COCO ids alone, and digests of its questions."""

    name: str
    images: ImageColumns = field(default_factory=ImageColumns)
    coco: set[int] = field(default_factory=set)
    questions: set[int] = field(default_factory=set)
    unreadable: int = 0


def index(against: Against, look_all: LookAll) -> Index:
    """Read a benchmark once.

    Raises:
        InputError: a list that cannot be read, or nothing in it to compare with.
    """
    made = Index(against.name)
    seen: set[Path] = set()
    waiting: list[Path] = []
    for item in against.items():
        if item.question.strip():
            made.questions.add(digest(normalize(item.question)))
        if number := coco_id(item.name):
            made.coco.add(number)
        if item.path is not None and item.path not in seen:
            seen.add(item.path)
            waiting.append(item.path)
        if len(waiting) == _TOGETHER:
            _add(made, look_all(waiting))
            waiting = []
    _add(made, look_all(waiting))
    if not (len(made.images) or made.coco or made.questions):
        raise InputError(f"benchmark {against.name} has neither pictures nor questions; name another")
    return made


def find_overlap(rows: Rows, images: ImageColumns, made: Index, like: Likeness) -> Iterator[Found]:
    """(row, check, benchmark, reason) of all that meets the benchmark."""
    places, owners, flat = integers(rows.number), rows.owners(), integers(rows.image)
    same = np.isin(numbers(images.digest), numbers(made.images.digest)) & (integers(images.opens) > 0)
    alike = _alike(images, made.images, like)
    coco = np.isin(integers(images.coco), np.array(sorted(made.coco), np.int64))
    for check, hit, reason in (
        ("overlap-image", same, "the same file"),
        ("overlap-alike", alike & ~same, "looks the same"),
        ("overlap-coco", coco, "the same COCO id"),
    ):
        for row in np.unique(owners[hit[flat]]):
            yield int(places[row]), check, made.name, reason
    asked = np.isin(numbers(rows.question), np.array(sorted(made.questions), np.uint64))
    for row in np.flatnonzero(asked):
        yield int(places[row]), "overlap-question", made.name, "the same question"


def _add(made: Index, looks: Iterable[Look]) -> None:
    for look in looks:
        if look.opens:
            made.images.add(look, 0)
        else:
            made.unreadable += 1


def _alike(images: ImageColumns, others: ImageColumns, like: Likeness) -> NDArray[np.bool_]:
    """Which images look like one of the others."""
    ours, back = _unique(images)
    theirs, _ = _unique(others)
    both = np.concatenate([ours, theirs])
    hit = np.zeros(len(ours), bool)
    for one, other in links(both[:, 0], like, confirming=both[:, 1]):
        first, second = np.minimum(one, other), np.maximum(one, other)
        hit[first[(first < len(ours)) & (second >= len(ours))]] = True
    found = np.zeros(len(images), bool)
    found[integers(images.hashed) > 0] = hit[back]
    return found


def _unique(images: ImageColumns) -> tuple[U64, Ints]:
    """The different (pHash, dHash) of images that have them, and which of them each of those images has."""
    hashed = integers(images.hashed) > 0
    table = np.stack([numbers(images.phash)[hashed], numbers(images.dhash)[hashed]], axis=1)
    if not len(table):
        return table, np.zeros(0, np.int64)
    unique, back = np.unique(table, axis=0, return_inverse=True)
    return unique, back.reshape(-1)
