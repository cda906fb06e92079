"""Answers that others wrote down: JSON lines, a JSON list or object, under the names that evaluation scripts use.

It does not know which question an answer belongs to; `matching` finds that out. Our own answer records are one of
these layouts.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sightline.config.problems import shorten
from sightline.data.coco import coco_id
from sightline.errors import InputError

IDS = ("sample_id", "question_id", "questionId", "image_id", "id")
#: Names that can only be the model's come first: `answer` is the truth in some lists, and `text` the question.
TEXTS = ("model_answer", "model_prediction", "prediction", "response", "output", "answer", "caption", "text")
_QUESTIONS = ("question", "prompt")

_COCO_DIGITS = 12

KeyOf = Callable[[Mapping[str, Any]], str | None]


class Given(NamedTuple):
    """One answer as found: `key` says what it answers, None in a list that goes by its order alone."""

    where: str
    key: str | None
    text: str
    question: str = ""
    tokens: int | None = None
    finished: bool | None = None


def read_answers(path: Path, key_of: KeyOf | None = None) -> Iterator[Given]:
    """The answers of a file, in order, one at a time where it has one a line.

    `key_of` is asked first for a row's key; where it says None, the first of `IDS` is the key.

    Raises:
        InputError: no such file, no JSON, or a row without an answer (with its place).
    """
    if not path.is_file():
        raise InputError(f"answers {path} do not exist or are no file; check the path")
    return given(_rows(path), key_of)


def given(rows: Iterable[tuple[str, Any]], key_of: KeyOf | None = None) -> Iterator[Given]:
    """The answers in rows, each with its place for errors; keys and errors as in `read_answers`."""
    for where, row in rows:
        if not isinstance(row, dict):
            raise InputError(f"{where}: {shorten(row)} is no JSON object; an answer is one, with an id and a text")
        key = key_of(row) if key_of is not None else None
        name = next((name for name in TEXTS if row.get(name) is not None), None)
        if name is None or not isinstance(row[name], str):
            found = "none" if name is None else f"{name} = {shorten(row[name])}"
            raise InputError(f"{where}: the answer must be text under one of {', '.join(TEXTS)} (found: {found})")
        yield Given(
            where,
            normal_key(row_key(row, where) if key is None else key),
            row[name],
            question=next((row[q] for q in _QUESTIONS if isinstance(row.get(q), str)), ""),
            tokens=row["tokens"] if type(row.get("tokens")) is int else None,
            finished=row["finished"] if isinstance(row.get("finished"), bool) else None,
        )


def row_key(row: Mapping[str, Any], where: str) -> str | None:
    """The id that a row names, as text; None where it names none."""
    name = next((name for name in IDS if row.get(name) is not None), None)
    if name is None:
        return None
    value = row[name]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f"{where}: {name} = {shorten(value)} is neither text nor a whole number; correct the row")
    return str(value)


def normal_key(key: str | None) -> str | None:
    """An id in the form in which ids are compared: a COCO file name is the number in it."""
    if key is None:
        return None
    number = coco_id(key) if len(key) >= _COCO_DIGITS else 0
    return str(number) if number else key.strip()


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"").strip().removeprefix(b"\xef\xbb\xbf")
    if not first:
        raise InputError(f"answers {path} are empty; give one JSON object a line")
    if first.startswith(b"[") or not _is_row(first):
        yield from _whole(path)
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path} line {number}"
                yield where, _json(line, where)


def _is_row(line: bytes) -> bool:
    """Whether a line is a row of its own, and not the beginning of a longer value nor a whole {id: text} object."""
    try:
        value = json.loads(line)
    except ValueError:
        return line.startswith(b"{") and not line.rstrip().endswith((b"{", b"[", b",")) and b":" in line
    return not isinstance(value, dict) or any(name in value for name in (*IDS, *TEXTS))


def _whole(path: Path) -> Iterator[tuple[str, Any]]:
    """A JSON list of rows, the official CHAIR layout (`imgToEval`), or an object {id: text}."""
    value = _json(path.read_bytes(), str(path))
    if isinstance(value, dict) and isinstance(value.get("imgToEval"), dict):
        value = list(value["imgToEval"].values())
    if isinstance(value, dict) and isinstance(value.get("sentences"), list):  # Object HalBench's hall_*.json
        value = value["sentences"]
    if isinstance(value, dict) and not any(name in value for name in (*IDS, *TEXTS)):
        value = [{"id": key, "text": text} for key, text in value.items()]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise InputError(f"answers {path} hold {shorten(value)}; give a list of objects, or one object a line")
    yield from ((f"{path} entry {number}", row) for number, row in enumerate(value, 1))


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)  # whose encoding it finds, a byte order mark included
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); give one JSON object a line") from error
