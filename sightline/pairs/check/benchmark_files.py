"""What a benchmark consists of, for the search of overlap: pictures and questions, from files, folders or samples.

Folders of images, JSONL with `image` and `text` (POPE's layout, also under the name .json), JSON lists of such. A
benchmark of the registry comes in as its samples, given by whoever may import it.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.data.images import FORMATS
from sightline.errors import InputError
from sightline.records import Sample
from sightline.records.decoding import require_text

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
_LISTS = (".jsonl", ".json")
_IMAGE, _QUESTION = ("image", "images", "image_path", "img"), ("text", "question", "prompt")


@dataclass(frozen=True)
class Item:
    """One question, or one picture: the name by which a list calls it, and the file where it is there."""

    name: str = ""
    path: Path | None = None
    question: str = ""


@dataclass(frozen=True)
class Against:
    """A benchmark by its name, how to get its items, and the file or folder it is read from, where it is one."""

    name: str
    items: Callable[[], Iterable[Item]]
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

    def items() -> Iterator[Item]:
        for sample in samples():
            yield Item(question=sample.prompt)
            yield from (Item(image, folder() / image) for image in sample.images)

    return Against(name, items)


def _items(place: Path) -> Iterator[Item]:
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    for path in files:
        if path.suffix.lower() in _SUFFIXES:
            yield Item(path.name, path)
        elif path.suffix.lower() in _LISTS and path.name != "manifest.json":
            yield from _listed(path)


def _listed(path: Path) -> Iterator[Item]:
    for where, row in _objects(path):
        question = next((row[key] for key in _QUESTION if isinstance(row.get(key), str)), "")
        named = next((row[key] for key in _IMAGE if row.get(key)), ())
        names = [named] if isinstance(named, str) else named
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{where}: the image is {str(names)[:60]!r} and no name; name another file")
        yield Item(question=question)
        for name in names:
            file = path.parent / name
            yield Item(name, file if "\0" not in name and file.is_file() else None)


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
