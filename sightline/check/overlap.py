"""Overlap of rows with a benchmark: by image (bytes, or hashes that survive resizing), by COCO id, by question."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.check.columns import U64, ImageColumns, Ints, Likeness, RowColumns, as_int64, as_uint64, similar_pairs
from sightline.check.image_facts import ImageFacts, InspectAll
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
    """A question, or an image: its name in the benchmark's list, and its file if it exists."""

    name: str = ""
    path: Path | None = None
    question: str = ""


@dataclass(frozen=True)
class BenchmarkSource:
    """A benchmark: its name, a function that yields its items, and the file or folder it is read from, if any."""

    name: str
    items: Callable[[], Iterable[BenchmarkItem]]
    place: Path | None = None


def source_from_path(place: Path) -> BenchmarkSource:
    """Read a folder or file as a benchmark.

    Raises:
        InputError: it does not exist or is of an unknown kind; later, when read, a line that is no JSON object.
    """
    if not place.is_dir() and not (place.is_file() and place.suffix.lower() in (*_SUFFIXES, *_LISTS)):
        raise InputError(
            f"benchmark {place} is not a folder, an image ({', '.join(FORMATS)}) or a {' or '.join(_LISTS)} file; "
            "name one of these"
        )
    return BenchmarkSource(place.name, lambda: _items(place), place)


def source_from_samples(
    name: str, folder: Callable[[], Path], samples: Callable[[], Iterable[Sample]]
) -> BenchmarkSource:
    """Wrap a benchmark's samples; `folder`, the root of image paths, is called after iteration has begun."""

    def items() -> Iterator[BenchmarkItem]:
        for sample in samples():
            yield BenchmarkItem(question=sample.prompt)
            yield from (BenchmarkItem(image, folder() / image) for image in sample.images)

    return BenchmarkSource(name, items)


def _items(place: Path) -> Iterator[BenchmarkItem]:
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    for path in files:
        if path.suffix.lower() in _SUFFIXES:
            yield BenchmarkItem(path.name, path)
        elif path.suffix.lower() in _LISTS and path.name != "manifest.json":
            yield from _list_items(path)


def _list_items(path: Path) -> Iterator[BenchmarkItem]:
    for where, row in _objects(path):
        question = next((row[key] for key in _QUESTION if isinstance(row.get(key), str)), "")
        named = next((row[key] for key in _IMAGE if row.get(key)), ())
        names = [named] if isinstance(named, str) else named
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{where}: the image is {str(names)[:60]!r}, not a name; use another file")
        yield BenchmarkItem(question=question)
        for name in names:
            file = path.parent / name
            yield BenchmarkItem(name, file if "\0" not in name and file.is_file() else None)


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON objects of a file with their places."""
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
            raise InputError(f"{where}: not a JSON object; a benchmark list holds one per line, with 'image' or 'text'")
        yield where, value


def _json(text: bytes, where: object) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); use a file with one JSON object per line") from error


_BATCH = 256  # images inspected together
FindingTuple = tuple[int, str, str, str]


@dataclass
class BenchmarkIndex:
    """A benchmark's content: its images, COCO ids (also of images that are not there), and digests of its questions."""

    name: str
    images: ImageColumns = field(default_factory=ImageColumns)
    coco: set[int] = field(default_factory=set)
    questions: set[int] = field(default_factory=set)
    unreadable: int = 0


def index_benchmark(source: BenchmarkSource, inspect_all: InspectAll) -> BenchmarkIndex:
    """Read a benchmark once.

    Raises:
        InputError: a list cannot be read, or the benchmark has nothing to compare with.
    """
    benchmark = BenchmarkIndex(source.name)
    seen: set[Path] = set()
    pending: list[Path] = []
    for item in source.items():
        if item.question.strip():
            benchmark.questions.add(digest(normalize(item.question)))
        if number := coco_id(item.name):
            benchmark.coco.add(number)
        if item.path is not None and item.path not in seen:
            seen.add(item.path)
            pending.append(item.path)
        if len(pending) == _BATCH:
            _add(benchmark, inspect_all(pending))
            pending = []
    _add(benchmark, inspect_all(pending))
    if not (len(benchmark.images) or benchmark.coco or benchmark.questions):
        raise InputError(f"benchmark {source.name} has neither images nor questions; name another")
    return benchmark


def find_overlap(
    rows: RowColumns, images: ImageColumns, benchmark: BenchmarkIndex, like: Likeness
) -> Iterator[FindingTuple]:
    """Yield (row, check, benchmark, reason) of all overlaps with the benchmark."""
    places, owners, flat = as_int64(rows.number), rows.owners(), as_int64(rows.image)
    same = np.isin(as_uint64(images.digest), as_uint64(benchmark.images.digest)) & (as_int64(images.opens) > 0)
    alike = _alike(images, benchmark.images, like)
    coco = np.isin(as_int64(images.coco), np.array(sorted(benchmark.coco), np.int64))
    for check, hit, reason in (
        ("overlap-image", same, "the same file"),
        ("overlap-alike", alike & ~same, "looks the same"),
        ("overlap-coco", coco, "the same COCO id"),
    ):
        for row in np.unique(owners[hit[flat]]):
            yield int(places[row]), check, benchmark.name, reason
    repeated = np.isin(as_uint64(rows.question), np.array(sorted(benchmark.questions), np.uint64))
    for row in np.flatnonzero(repeated):
        yield int(places[row]), "overlap-question", benchmark.name, "the same question"


def _add(benchmark: BenchmarkIndex, facts_of_images: Iterable[ImageFacts]) -> None:
    for facts in facts_of_images:
        if facts.opens:
            benchmark.images.add(facts, 0)
        else:
            benchmark.unreadable += 1


def _alike(images: ImageColumns, others: ImageColumns, like: Likeness) -> NDArray[np.bool_]:
    """Return which images look like one of the others."""
    ours, back = _unique(images)
    theirs, _ = _unique(others)
    both = np.concatenate([ours, theirs])
    hit = np.zeros(len(ours), bool)
    for one, other in similar_pairs(both[:, 0], like, confirming=both[:, 1]):
        first, second = np.minimum(one, other), np.maximum(one, other)
        hit[first[(first < len(ours)) & (second >= len(ours))]] = True
    found = np.zeros(len(images), bool)
    found[as_int64(images.hashed) > 0] = hit[back]
    return found


def _unique(images: ImageColumns) -> tuple[U64, Ints]:
    """Return the distinct (pHash, dHash) of hashed images, and the position of each image's hashes among them."""
    hashed = as_int64(images.hashed) > 0
    table = np.stack([as_uint64(images.phash)[hashed], as_uint64(images.dhash)[hashed]], axis=1)
    if not len(table):
        return table, np.zeros(0, np.int64)
    unique, back = np.unique(table, axis=0, return_inverse=True)
    return unique, back.reshape(-1)
