"""COCO's 80 objects in a text, found as in the official CHAIR script: singulars, double words, synonyms; and the truth.

Texts are scored in `chair` and `object_halbench`. The synonyms are Sightline's own list, or a file such as the official
`synonyms.txt`; the metrics depend on the list.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.config.problems import shorten
from sightline.data.images import coco_id
from sightline.errors import InputError
from sightline.evals.benches.singular import singular
from sightline.evals.benches.words import Word, find_words
from sightline.evals.registry import get_entry
from sightline.records.rows import Span

SYNONYMS = Path(__file__).with_name("coco_synonyms.txt")

_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
#: Two words that name one object. The official list has three more that can never match: they have three words, or a
#: word that loses its s ("sports", "tennis").
_PAIRS = """
air plane, baseball bat, baseball glove, cell phone, fire hydrant, hair drier, home plate, hot dog, laptop computer,
mobile phone, motor bike, motor cycle, parking meter, potted plant, stop light, stop sign, street light, suit case,
teddy bear, traffic light, traffic signal, train track, wine glass
"""
_TOGETHER = [pair.strip() for pair in _PAIRS.split(",")]
#: Two words that are replaced by one: "baby elephant" is not a person, "toilet seat" not a chair.
_REPLACED = {
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS},
    **{f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")},
    "bow tie": "tie",
    "toilet seat": "toilet",
    "wine glas": "wine glass",
}


@dataclass(frozen=True)
class ObjectMention:
    """A word for a COCO object, the object, and the word's span in the text."""

    word: str
    object: str
    span: Span


@dataclass(frozen=True)
class Vocabulary:
    """`objects` maps every synonym to its object, `doubles` two words to the word that replaces them.

    `caveats` says if the synonyms are Sightline's own.
    """

    objects: Mapping[str, str]
    doubles: Mapping[str, str]
    caveats: tuple[str, ...] = ()

    @cached_property
    def known(self) -> frozenset[str]:
        """Every synonym, and every single word of the double words."""
        return frozenset(self.objects).union(*(double.split(" ") for double in self.doubles), self.doubles.values())

    @cached_property
    def _firsts(self) -> frozenset[str]:
        return frozenset(double.partition(" ")[0] for double in self.doubles)

    def mentions(self, text: str, lemma: Callable[[str], str] = singular) -> list[ObjectMention]:
        """Every word for an object, including repeated ones; spans refer to the text as given."""
        lower = text.lower()
        if len(lower) != len(text):  # a letter that gets longer in lower case would shift the spans
            lower = "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)
        return self.among([Word(lemma(word.text), word.span) for word in find_words(lower)])

    def among(self, words: Sequence[Word]) -> list[ObjectMention]:
        """The objects among the words, which are singular already, after double words are joined."""
        joined = self.join(words)
        if any(word.text == "toilet" for word in joined):
            joined = [word for word in joined if word.text != "seat"]  # "the seat of the toilet" is not a chair
        return [
            ObjectMention(word.text, self.objects[word.text], word.span) for word in joined if word.text in self.objects
        ]

    def join(self, words: Sequence[Word]) -> list[Word]:
        """The words with double words joined, from left to right."""
        joined, index, last = [], 0, len(words) - 1
        while index <= last:
            word = words[index]
            double = None
            if index < last and word.text in self._firsts:
                double = self.doubles.get(f"{word.text} {words[index + 1].text}")
            if double is None:
                joined.append(word)
                index += 1
            else:
                joined.append(Word(double, (word.span[0], words[index + 1].span[1])))
                index += 2
        return joined

    def resolve(self, name: str) -> str:
        """The object of a name in the truth; a name that is not a synonym is its own object."""
        return self.objects.get(name, name)


def chair_vocabulary(path: Path | None = None) -> Vocabulary:
    """CHAIR's vocabulary: double words are a fixed list, and a line is split at ", " without stripping.

    So the official file's `cake,  cheesecake` gives " cheesecake", with a blank, which never matches.
    """
    rows = _read(path or SYNONYMS)
    return Vocabulary(_objects(rows), {**{double: double for double in _TOGETHER}, **_REPLACED}, _caveats(path))


def halbench_vocabulary(path: Path | None = None) -> Vocabulary:
    """Object HalBench's vocabulary: synonyms are stripped, and every synonym of several words is a double word."""
    rows = [[synonym.strip() for synonym in row] for row in _read(path or SYNONYMS)]
    objects = _objects(rows)
    doubles = [word for word in objects if " " in word] + ["home plate", "train track"]
    return Vocabulary(objects, {**{double: double for double in doubles}, **_REPLACED}, _caveats(path))


def _caveats(path: Path | None) -> tuple[str, ...]:
    caveat = "the synonyms are our own list; for the published figures give the owners' with --synonyms"
    return () if path else (caveat,)


def _objects(rows: Sequence[Sequence[str]]) -> dict[str, str]:
    return {synonym: row[0] for row in rows for synonym in row}


def _read(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: the synonyms cannot be read ({error}); give the official data/synonyms.txt of "
            "LisaAnne/Hallucination, or remove --synonyms to use Sightline's list."
        ) from error
    return [line.strip().split(", ") for line in text.splitlines() if line.strip()]


PARTS = ("val", "train")
#: The first byte of a pickle of protocol 2 or later.
_PICKLE = b"\x80"
#: Fields that are read from COCO's files; the others, mainly outlines of objects, are dropped while parsing.
_KNOWN_FIELDS = frozenset(
    {"annotations", "caption", "categories", "category_id", "file_name", "id", "image_id", "images", "name"}
)


@dataclass
class CocoPicture:
    """An image's file name (empty if unknown), the names of its annotated objects, and its reference captions."""

    file: str = ""
    objects: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


def read_truth(benchmark: str, place: Path) -> Mapping[str, CocoPicture]:
    """The images by id, a number as text, from a folder or a file.

    A folder holds `instances_{val,train}2014.json` with `captions_{val,train}2014.json` (one part is enough; they may
    be in `annotations/`), or one JSON `{image_id: [object, ...]}`; a file is such a JSON.

    Raises:
        InputError: there is no such file, one of the two files of a part is missing, or a file is broken.
    """
    if place.is_file():
        _refuse_pickle(benchmark, place)
        return _read_plain(place)
    parts = [(_find(place, f"instances_{part}2014.json"), _find(place, f"captions_{part}2014.json")) for part in PARTS]
    pictures: dict[str, CocoPicture] = {}
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
    return _read_plain(found[0])


def picture_key(name: object) -> str:
    """An image's id as text: the number in a COCO file name, a number without leading zeros, or the name."""
    text = str(name).strip()
    number = coco_id(text)
    return str(number) if number else str(int(text)) if text.isdecimal() else text


def answer_picture(row: Mapping[str, Any]) -> str | None:
    """The image of an answer row; the image's id or file name takes precedence over the question's."""
    names = ("image_id", "image", "sample_id", "question_id", "id")
    found = next((row[name] for name in names if isinstance(row.get(name), int | str)), None)
    return None if found is None else picture_key(found)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / "annotations" / name) if path.is_file()), None)


def _add_instances(path: Path, pictures: dict[str, CocoPicture]) -> None:
    value = _json(path, _keep_known_fields)
    try:
        names = {row["id"]: row["name"] for row in value["categories"]}
        for row in value["images"]:
            pictures.setdefault(str(row["id"]), CocoPicture()).file = row["file_name"]
        for row in value["annotations"]:
            pictures.setdefault(str(row["image_id"]), CocoPicture()).objects.append(names[row["category_id"]])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is not COCO's instances ({error!r}); fetch the official file again") from error


def _add_captions(path: Path, pictures: dict[str, CocoPicture]) -> None:
    value = _json(path, _keep_known_fields)
    try:
        for row in value.get("images", []):
            picture = pictures.setdefault(str(row["id"]), CocoPicture())
            picture.file = picture.file or row["file_name"]
        for row in value["annotations"]:
            pictures.setdefault(str(row["image_id"]), CocoPicture()).captions.append(row["caption"])
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not COCO's captions ({error!r}); fetch the official file again") from error


def _refuse_pickle(benchmark: str, path: Path) -> None:
    """Refuse the official `chair.pkl`, or any other pickle: opening one can run code in it."""
    with path.open("rb") as file:
        is_pickle = file.read(1) == _PICKLE or path.suffix == ".pkl"
    if is_pickle:
        raise InputError(
            f"{path} is a Python pickle, like the cache chair.pkl of CHAIR-metric-standalone; pickles are not read,"
            " because opening one can run any code. Give COCO's instances_val2014.json and captions_val2014.json, from"
            f" which it was made ({get_entry(benchmark).files}), or write its imid_to_objects to a JSON"
            " {image_id: [object, ...]} as shown in docs/reference/benchmarks.md."
        )


def _read_plain(path: Path) -> dict[str, CocoPicture]:
    value = _json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {shorten(value)}; give an object {{image_id: [object, ...]}}")
    pictures = {}
    for name, objects in value.items():
        if not _is_names(objects):
            raise InputError(f"{path}: {name!r} has {shorten(objects)}; give a list of names of objects")
        key = picture_key(name)
        pictures[key] = CocoPicture(file=name if coco_id(name) else "", objects=objects)
    return pictures


def _is_plain(path: Path) -> bool:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(value, dict) and bool(value) and all(map(_is_names, value.values()))


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _keep_known_fields(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in row.keys() & _KNOWN_FIELDS}


def _json(path: Path, kept: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    try:
        return json.loads(path.read_bytes(), object_hook=kept)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); fetch the official file again") from error
