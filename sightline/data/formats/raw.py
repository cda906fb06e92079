"""Rows of local JSON, JSONL and Parquet files as dictionaries with their location, and images embedded as text.

Embedded images are data URIs (RFC 2397) or bare base64. `layout` readers interpret the columns; nothing is downloaded.
"""

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sightline.config.problems import brief, shorten
from sightline.errors import InputError
from sightline.records.decoding import (
    BYTE_ORDER_MARK,
    LenientDecoder,
    NotStrict,
    first_undecodable,
    is_cut_off,
    refuse_undecodable,
    require_text,
    strict_json,
    undecodable,
)
from sightline.records.manifest import MANIFEST
from sightline.records.store import MAX_LINE

#: Suffixes by priority: of a directory, only files with the first suffix found are read.
SUFFIXES = (".parquet", ".jsonl", ".json")
_NO_ROWS = frozenset({MANIFEST, "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
_CHUNK = 2**20  # characters of a JSON array read at once
_BETWEEN = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")


@dataclass(frozen=True)
class Raw:
    """A row as in its file. `problem` is set if the line is not a JSON object."""

    path: Path
    number: int
    columns: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @property
    def where(self) -> str:
        """The row's location, for errors."""
        return f"{self.path} row {self.number}"


def data_files(place: Path) -> list[Path]:
    """The data files of a path: itself, or all of one suffix below the directory, sorted.

    Raises:
        InputError: there are none.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise InputError(f"{place} does not exist; check the path")
    below = sorted(path for path in place.rglob("*") if path.is_file() and not _is_hidden(path, place))
    for suffix in SUFFIXES:
        found = [path for path in below if path.suffix.lower() == suffix and path.name not in _NO_ROWS]
        if found:
            return found
    raise InputError(f"{place} holds no {', '.join(SUFFIXES)} files; name a file or another directory")


def read_raw(files: Sequence[Path]) -> Iterator[Raw]:
    """The rows of all files in order. Memory holds a batch of Parquet rows, or one JSON row and a chunk of the file.

    Raises:
        InputError: a file cannot be read or is not UTF-8 (even if bad rows are dropped, since its rows cannot be
        found),
            a JSON array is malformed, or a line is too long.
    """
    for path in files:
        yield from _from_parquet(path) if path.suffix.lower() == ".parquet" else _from_json(path)


def _is_hidden(path: Path, place: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(place).parts)


def _from_parquet(path: Path) -> Iterator[Raw]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=32):
                for row in batch.to_pylist():
                    number += 1
                    yield Raw(path, number, row)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as Parquet ({reason}); create or fetch it again") from error


def _from_json(path: Path) -> Iterator[Raw]:
    """Read an array or one object a line, judged by the content: `.json` is used for both."""
    require_text(path)
    with path.open("rb") as file:
        start = file.read(4096).removeprefix(BYTE_ORDER_MARK).lstrip()
    yield from _from_array(path) if start.startswith(b"[") else _from_lines(path)


def _from_lines(path: Path) -> Iterator[Raw]:
    with path.open("rb") as file:
        number, start, end = 0, 0, 0
        while line := file.readline(MAX_LINE):
            number, start, end = number + 1, end, end + len(line)
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                raise InputError(f"{path} row {number}: longer than {MAX_LINE} bytes; is this a JSONL file?")
            if (problem := undecodable(line, start)) is not None and not is_cut_off(line):
                raise refuse_undecodable(problem, path, f"{path} row {number}")
            line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if not line.strip():
                continue
            yield _from_line(path, number, line)


def _from_line(path: Path, number: int, line: bytes) -> Raw:
    try:
        return _row(path, number, strict_json(line.decode("utf-8")))
    except NotStrict as error:
        return Raw(path, number, problem=str(error))
    except json.JSONDecodeError as error:
        if number == 1 and _opens_object(line):
            reason = "an object over several lines; write one object per line, or an array of them"
        else:
            reason = f"{error.msg.lower()} at character {error.pos + 1}"
        return Raw(path, number, problem=f"not JSON, {shorten(line.strip().decode('utf-8'))} ({reason})")
    except (ValueError, RecursionError) as error:  # truncated in a character, too many digits, nested too deeply
        shown = shorten(line.strip().decode("utf-8", errors="replace"))
        return Raw(path, number, problem=f"not JSON, {shown} ({brief(error)})")


def _opens_object(line: bytes) -> bool:
    """Whether a line is the first of an object spread over several lines."""
    return line.strip() == b"{"


def _from_array(path: Path) -> Iterator[Raw]:
    decoder, number = LenientDecoder(), 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            buffer, at = "", 0
            while not at:  # `_from_json` has found it
                buffer += file.read(_CHUNK)
                at = buffer.find("[") + 1
            while True:
                at = _end(_BETWEEN.match(buffer, at))
                if buffer.startswith("]", at):
                    return
                decoder.problem = ""
                try:
                    value, at = decoder.raw_decode(buffer, at)
                except json.JSONDecodeError as error:  # the row is malformed, or continues in the next chunk
                    more = file.read(max(_CHUNK, len(buffer) - at))
                    if not more or len(buffer) - at > MAX_LINE:
                        reason = error.msg if more else f"{error.msg}, up to the end of the file"
                        raise InputError(
                            f"{path} row {number + 1}: not JSON ({reason}); correct it or download the file again"
                        ) from error
                    buffer, at = buffer[at:] + more, 0
                    continue
                number += 1
                yield Raw(path, number, problem=decoder.problem) if decoder.problem else _row(path, number, value)
    except UnicodeDecodeError as error:
        problem = first_undecodable(path) or brief(error)
        raise refuse_undecodable(problem, path, f"{path} row {number + 1}") from error
    except RecursionError as error:
        raise InputError(f"{path} row {number + 1}: not JSON ({error}); download the file again") from error


def _end(match: re.Match[str] | None) -> int:
    assert match is not None  # the pattern also matches the empty string
    return match.end()


def _row(path: Path, number: int, value: object) -> Raw:
    if isinstance(value, dict):
        return Raw(path, number, value)
    return Raw(path, number, problem=f"a row must be an object with columns and not {shorten(value)}")


#: The first bytes of each image format, by file suffix.
_KINDS = {
    "png": rb"\x89PNG\r\n\x1a\n",
    "jpg": rb"\xff\xd8\xff",
    "gif": rb"GIF8[79]a",
    "webp": rb"RIFF.{4}WEBP",
    "tif": rb"II\*\0|MM\0\*",
    "avif": rb".{4}ftypavi[fs]",
    "bmp": rb"BM.{4}\0{4}",
    "ppm": rb"P[1-6]\s+\d",
}
_LEAST = 64  # characters; no image is smaller, and paths that could be base64 are mostly shorter
_URI = re.compile(r"data:[^,]*?(?P<base64>;base64)?,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


class NotEmbedded(Exception):
    """A text that claims to be an embedded image and is not a valid one."""


def embedded_picture(text: str) -> tuple[str, bytes] | None:
    """A name with the format's suffix, and the bytes; None if the text is not an embedded image, such as a path.

    Raises:
        NotEmbedded: a data URI is not base64, or the base64 of an image is damaged.
    """
    if text[:5].lower() == "data:":
        found = _URI.match(text)
        if found is None or not found["base64"]:
            raise NotEmbedded("is a data URI without base64; write the picture to a file, or in base64")
        data = _decoded(text[found.end() :])
        if (kind := _kind(data)) is None:
            raise NotEmbedded("is a data URI of an unsupported image format; convert it to PNG or JPEG")
        return f"base64.{kind}", data
    if len(text) < _LEAST:
        return None
    start = "".join(text[: 2 * _LEAST].split())[:_LEAST]
    if len(start) < _LEAST or not _BASE64.fullmatch(start) or (kind := _kind(base64.b64decode(start))) is None:
        return None
    return f"base64.{kind}", _decoded(text)


def _kind(data: bytes) -> str | None:
    return next((kind for kind, start in _KINDS.items() if re.match(start, data, re.DOTALL)), None)


def _decoded(text: str) -> bytes:
    """The decoded bytes of base64, with or without padding and line breaks."""
    text = "".join(text.split())
    if not text or not _BASE64.fullmatch(text) or len(text.rstrip("=")) % 4 == 1:
        raise NotEmbedded("is damaged or truncated base64; write it again, or drop the row")
    return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
