"""Answers that others wrote down: which question each means, its text, and what else the row says of it.

It does not know which question an answer belongs to; `matching` finds that out. The layouts of files are
`answer_layouts`, names of the answer's key `answer_keys`. Our own answer records are one of the layouts.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sightline.config.problems import shorten
from sightline.data.images import coco_id
from sightline.errors import InputError
from sightline.evals.answer_keys import AnswerKeys
from sightline.evals.answer_layouts import IDS, answer_rows

#: Keys that name the picture that was asked about; the first that holds text or a number.
_IMAGES = (
    "image",
    "image_id",
    "imageId",
    "image_path",
    "image_file",
    "image_name",
    "image_source",
    "image_src",
    "imagename",
    "img",
    "img_path",
    "img_id",
    "file_name",
    "filename",
)
_COCO_DIGITS = 12
#: A whole number that a table or pandas wrote as a float.
_WHOLE = re.compile(r"-?\d+\.0+")

KeyOf = Callable[[Mapping[str, Any]], str | None]


@dataclass(frozen=True)
class AnswerSource:
    """A file of answers; `key` is the name of the model's answer, where the file's own names do not tell."""

    path: Path
    key: str | None = None
    strip_reasoning: bool = False


class Given(NamedTuple):
    """One answer as found: `key` says what it answers, None in a list that goes by its order alone.

    `question` and `image` are what the row says was asked, empty where it says nothing; `name` is its answer's key.
    """

    where: str
    key: str | None
    text: str
    question: str = ""
    tokens: int | None = None
    finished: bool | None = None
    image: str = ""
    name: str = ""


def read_answers(path: Path, key_of: KeyOf | None = None, answer_key: str | None = None) -> Iterator[Given]:
    """The answers of a file, in order, one at a time where it has one a line.

    `key_of` is asked first for a row's key; where it says None, the first of `IDS` is the key. `answer_key` names the
    answer's key.

    Raises:
        InputError: no such file, none of the known layouts, or a row whose answer is missing or not clear (its place).
    """
    return given(file_rows(path), key_of, answer_key)


def file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a file of answers, each with its place for errors; an InputError where there is no file."""
    if not path.is_file():
        raise InputError(f"answers {path} do not exist or are no file; check the path")
    return answer_rows(path)


def given(
    rows: Iterable[tuple[str, Any]], key_of: KeyOf | None = None, answer_key: str | None = None
) -> Iterator[Given]:
    """The answers in rows, each with its place for errors; keys and errors as in `read_answers`."""
    keys = AnswerKeys(answer_key)
    for where, found in rows:
        if not isinstance(found, dict):
            raise InputError(f"{where}: {shorten(found)} is no JSON object; an answer is one, with an id and a text")
        row = with_whole_ids(found)
        key = key_of(row) if key_of is not None else None
        answer = keys.read(row, where)
        yield Given(
            where,
            normal_key(row_key(row, where) if key is None else key),
            answer.text,
            question=answer.question,
            tokens=row["tokens"] if type(row.get("tokens")) is int else None,
            finished=row["finished"] if isinstance(row.get("finished"), bool) else None,
            image=_image_in(row),
            name=answer.key,
        )


def row_key(row: Mapping[str, Any], where: str) -> str | None:
    """The id that a row names, as text; None where it names none."""
    name = next((name for name in IDS if row.get(name) is not None), None)
    if name is None:
        return None
    value = whole(row[name])
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f"{where}: {name} = {shorten(value)} is neither text nor a whole number; correct the row")
    return str(value)


def whole(value: Any) -> Any:
    """An id that a table or pandas wrote as a float, 1.0 or "1.0", as the whole number; anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.strip().partition(".")[0] if isinstance(value, str) and _WHOLE.fullmatch(value.strip()) else value


def with_whole_ids(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row without floats that are whole numbers, and without text such as "1.0" where an id belongs."""
    changed = {
        name: number
        for name, value in row.items()
        if isinstance(value, float | str) and (number := whole(value)) is not value
        if isinstance(value, float) or name.lower().endswith("id")
    }
    return {**row, **changed} if changed else row


def normal_key(key: str | None) -> str | None:
    """An id in the form in which ids are compared: a COCO file name is the number in it, and 1.0 is 1."""
    if key is None:
        return None
    number = coco_id(key) if len(key) >= _COCO_DIGITS else 0
    return str(number) if number else str(whole(key.strip()))


def picture_name(name: str) -> str:
    """A picture's name in the form in which names are compared: COCO's number, or the file's name without ending."""
    number = coco_id(name)
    stem = re.split(r"[/\\]", name.strip())[-1]
    stem = re.sub(r"\.(?:jpe?g|png|webp|bmp|gif|tiff?)$", "", stem, flags=re.IGNORECASE)
    return str(number) if number else str(int(stem)) if stem.isdecimal() else stem.casefold()


def _image_in(row: Mapping[str, Any]) -> str:
    for name in _IMAGES:
        value = row.get(name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        value = whole(value)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return picture_name(str(value)) if len(str(value)) < 1000 else ""
    return ""
