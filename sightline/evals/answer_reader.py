"""Reader of answer files from any tool: the id, text, question and image of each row.

Answers are assigned to samples in `answer_alignment`, file layouts are parsed in `answer_layouts`, and the answer's
key is found in `answer_keys`. Sightline's own answer records are one of the layouts.
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

#: Keys that name the image; the first that holds text or a number counts.
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
#: A whole number written as a float, as tables and pandas do.
_WHOLE = re.compile(r"-?\d+\.0+")

KeyOf = Callable[[Mapping[str, Any]], str | None]


@dataclass(frozen=True)
class AnswerSource:
    """An answer file; `key` names the model's answer where the file's own keys are ambiguous."""

    path: Path
    key: str | None = None
    strip_reasoning: bool = False


class AnswerRow(NamedTuple):
    """One row of an answer file: `key` is the id of its question, None in a list without ids.

    `question` and `image` are empty where the row has none; `name` is the key that holds the answer.
    """

    where: str
    key: str | None
    text: str
    question: str = ""
    tokens: int | None = None
    finished: bool | None = None
    image: str = ""
    name: str = ""


def read_answers(path: Path, key_of: KeyOf | None = None, answer_key: str | None = None) -> Iterator[AnswerRow]:
    """The answers of a file, in order; files with one row a line are streamed.

    `key_of` gives a row's id; where it returns None, the first of `IDS` does. `answer_key` names the key of the answer.

    Raises:
        InputError: the file does not exist or has no known layout, or a row's answer is missing or ambiguous.
    """
    return parse_answers(file_rows(path), key_of, answer_key)


def file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of an answer file, each with its place for errors; raises an InputError if there is no file."""
    if not path.is_file():
        raise InputError(f"answers {path} does not exist or is not a file; check the path")
    return answer_rows(path)


def parse_answers(
    rows: Iterable[tuple[str, Any]], key_of: KeyOf | None = None, answer_key: str | None = None
) -> Iterator[AnswerRow]:
    """The answers of rows with their places for errors; arguments and errors as in `read_answers`."""
    keys = AnswerKeys(answer_key)
    for where, found in rows:
        if not isinstance(found, dict):
            raise InputError(f"{where}: {shorten(found)} is not a JSON object; give an object with an id and a text")
        row = with_integer_ids(found)
        key = key_of(row) if key_of is not None else None
        answer = keys.read(row, where)
        yield AnswerRow(
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
    """The row's id as text; None where it has none."""
    name = next((name for name in IDS if row.get(name) is not None), None)
    if name is None:
        return None
    value = whole_id(row[name])
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f"{where}: {name} = {shorten(value)} is neither text nor a whole number; correct the row")
    return str(value)


def whole_id(value: Any) -> Any:
    """The value, with a whole number written as a float (1.0 or "1.0") made an integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.strip().partition(".")[0] if isinstance(value, str) and _WHOLE.fullmatch(value.strip()) else value


def with_integer_ids(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with whole-number floats, and ids such as "1.0", made integers."""
    changed = {
        name: number
        for name, value in row.items()
        if isinstance(value, float | str) and (number := whole_id(value)) is not value
        if isinstance(value, float) or name.lower().endswith("id")
    }
    return {**row, **changed} if changed else row


def normal_key(key: str | None) -> str | None:
    """The id as it is compared: a COCO file name becomes its number, and 1.0 becomes 1."""
    if key is None:
        return None
    number = coco_id(key) if len(key) >= _COCO_DIGITS else 0
    return str(number) if number else str(whole_id(key.strip()))


def normal_image_name(name: str) -> str:
    """The image name as it is compared: COCO's number, or the file name without suffix."""
    number = coco_id(name)
    stem = re.split(r"[/\\]", name.strip())[-1]
    stem = re.sub(r"\.(?:jpe?g|png|webp|bmp|gif|tiff?)$", "", stem, flags=re.IGNORECASE)
    return str(number) if number else str(int(stem)) if stem.isdecimal() else stem.casefold()


def _image_in(row: Mapping[str, Any]) -> str:
    for name in _IMAGES:
        value = row.get(name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        value = whole_id(value)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return normal_image_name(str(value)) if len(str(value)) < 1000 else ""
    return ""
