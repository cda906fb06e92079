"""What is in COCO's pictures, by its annotation files or by a plain JSON of objects; read once, kept by picture.

The official scripts take the union of the annotated instances and of the objects that the reference captions name. So
the captions are kept as text here, and whoever scores finds their objects with the vocabulary that reads the answers.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sightline.config.problems import shorten
from sightline.data.coco import coco_id
from sightline.errors import InputError
from sightline.evals.registry import get_entry

PARTS = ("val", "train")
#: The first byte of a pickle of protocol 2 or later.
_PICKLE = b"\x80"
#: What is read of COCO's files; outlines of objects, which are most of them, are dropped as they are parsed.
_READ = frozenset(
    {"annotations", "caption", "categories", "category_id", "file_name", "id", "image_id", "images", "name"}
)


@dataclass
class Picture:
    """One picture's file name (empty if unknown), the names of its annotated objects, and its reference captions."""

    file: str = ""
    objects: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


def read_truth(benchmark: str, place: Path) -> Mapping[str, Picture]:
    """The pictures by id, a number as text, from a folder or a file.

    A folder holds `instances_{val,train}2014.json` with `captions_{val,train}2014.json` (one part is enough; they may
    lie in `annotations/`), or one JSON `{image_id: [object, ...]}`; a file is such a JSON.

    Raises:
        InputError: nothing of the kind is there, one of the two files of a part is missing, or a file is broken.
    """
    if place.is_file():
        _refuse_pickle(benchmark, place)
        return _plain(place)
    parts = [(_find(place, f"instances_{part}2014.json"), _find(place, f"captions_{part}2014.json")) for part in PARTS]
    pictures: dict[str, Picture] = {}
    for part, (instances, captions) in zip(PARTS, parts, strict=True):
        if instances is not None and captions is not None:
            _add_instances(instances, pictures)
            _add_captions(captions, pictures)
        elif instances is not None or captions is not None:
            absent = f"{'captions' if captions is None else 'instances'}_{part}2014.json"
            raise InputError(
                f"{benchmark} needs {absent} beside {instances or captions}: the truth is the union of instances and"
                f" captions; its owners publish it at {get_entry(benchmark).files}"
            )
    if pictures:
        return pictures
    found = [path for path in sorted(place.glob("*.json")) if _is_plain(path)] if place.is_dir() else []
    if len(found) != 1:
        for path in sorted(place.glob("*.pkl")) if place.is_dir() and not found else ():
            _refuse_pickle(benchmark, path)
        many = f" (found: {', '.join(path.name for path in found)})" if found else ""
        raise InputError(
            f"{benchmark} needs instances_val2014.json and captions_val2014.json in {place}, or one JSON"
            f" {{image_id: [object, ...]}}{many}; the owners of COCO publish them at {get_entry(benchmark).files}"
        )
    return _plain(found[0])


def picture_key(name: object) -> str:
    """A picture's id as text: the number in a file name of COCO's, a number without leading zeros, or the name."""
    text = str(name).strip()
    number = coco_id(text)
    return str(number) if number else str(int(text)) if text.isdecimal() else text


def answer_picture(row: Mapping[str, Any]) -> str | None:
    """The picture that a row of answers is about; its own id or file name goes before the question's."""
    names = ("image_id", "image", "sample_id", "question_id", "id")
    found = next((row[name] for name in names if isinstance(row.get(name), int | str)), None)
    return None if found is None else picture_key(found)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / "annotations" / name) if path.is_file()), None)


def _add_instances(path: Path, pictures: dict[str, Picture]) -> None:
    value = _json(path, _needed)
    try:
        names = {row["id"]: row["name"] for row in value["categories"]}
        for row in value["images"]:
            pictures.setdefault(str(row["id"]), Picture()).file = row["file_name"]
        for row in value["annotations"]:
            pictures.setdefault(str(row["image_id"]), Picture()).objects.append(names[row["category_id"]])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is not COCO's instances ({error!r}); fetch the official file again") from error


def _add_captions(path: Path, pictures: dict[str, Picture]) -> None:
    value = _json(path, _needed)
    try:
        for row in value.get("images", []):
            picture = pictures.setdefault(str(row["id"]), Picture())
            picture.file = picture.file or row["file_name"]
        for row in value["annotations"]:
            pictures.setdefault(str(row["image_id"]), Picture()).captions.append(row["caption"])
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not COCO's captions ({error!r}); fetch the official file again") from error


def _refuse_pickle(benchmark: str, path: Path) -> None:
    """Refuse the official `chair.pkl`, or any other pickle: to open one is to run the code in it."""
    with path.open("rb") as file:
        is_pickle = file.read(1) == _PICKLE or path.suffix == ".pkl"
    if is_pickle:
        raise InputError(
            f"{path} is a Python pickle, as the cache chair.pkl that chair.py of CHAIR-metric-standalone writes and its"
            " owner publishes; a pickle can run any code when it is opened and is not read. Give COCO's"
            " instances_val2014.json and captions_val2014.json, from which it was made"
            f" ({get_entry(benchmark).files}), or write its imid_to_objects to a JSON {{image_id: [object, ...]}} as"
            " docs/benchmarks.md shows."
        )


def _plain(path: Path) -> dict[str, Picture]:
    value = _json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {shorten(value)}; give an object {{image_id: [object, ...]}}")
    pictures = {}
    for name, objects in value.items():
        if not _is_names(objects):
            raise InputError(f"{path}: {name!r} has {shorten(objects)}; give a list of names of objects")
        key = picture_key(name)
        pictures[key] = Picture(file=name if coco_id(name) else "", objects=objects)
    return pictures


def _is_plain(path: Path) -> bool:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(value, dict) and bool(value) and all(map(_is_names, value.values()))


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _needed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in row.keys() & _READ}


def _json(path: Path, kept: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    try:
        return json.loads(path.read_bytes(), object_hook=kept)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); fetch the official file again") from error
