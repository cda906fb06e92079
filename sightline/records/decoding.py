"""Checks of text files: UTF-8, and strict JSON (each key once, finite numbers only).

A compressed file or one in another encoding is refused as a whole, since its lines cannot be found. `store` and
`data.formats` interpret the rows.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from sightline.config.problems import shorten
from sightline.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HEAD = 4096
#: First bytes of compressed files, the format's name, and the command that unpacks it.
_PACKED = (
    (b"\x1f\x8b", "gzip", "gunzip -c"),
    (b"BZh", "bzip2", "bunzip2 -c"),
    (b"\xfd7zXZ\x00", "xz", "xz -dc"),
    (b"\x28\xb5\x2f\xfd", "Zstandard", "zstd -dc"),
    (b"PK\x03\x04", "a ZIP archive", "unzip -p"),
)
_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def require_text(path: Path) -> None:
    """Refuse a file that is compressed, Parquet, UTF-16 or UTF-32, judged by its first bytes.

    Raises:
        InputError: it is one of these; the message has the command that converts it.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for start, kind, command in _PACKED:
        # A text may start with "BZh", but no row does.
        if head.startswith(start):
            raise InputError(f"{path} is {kind} and not text; unpack it with `{command} {path.name} > NEW`")
    if head.startswith(b"PAR1"):
        raise InputError(f"{path} is Parquet and not text; rename it to end in .parquet")
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            found = f"{encoding} (byte order mark {mark.hex(' ').upper()} at byte 0)"
            raise InputError(f"{path} is {found} and not UTF-8; {_remedy(encoding, path)}")
    odd, even = head[1::2].count(0), head[::2].count(0)
    if max(odd, even) * 8 > len(head) and not min(odd, even):
        encoding = "UTF-16LE" if odd else "UTF-16BE"
        place = head.index(0)
        raise InputError(
            f"{path} seems to be {encoding} (byte {place} is 0x00) and not UTF-8; {_remedy(encoding, path)}"
        )


def undecodable(line: bytes, start: int = 0) -> str | None:
    """A phrase for the first byte of a line that is not UTF-8, else None; `start` is the line's offset in its file."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        at = start + error.start
        return f"byte {at} is 0x{line[error.start]:02X}, which is not UTF-8 (Latin-1 or Windows-1252?)"
    return None


def is_cut_off(line: bytes) -> bool:
    """Whether a last line ends within a character, as in a truncated file."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.end == len(line) and error.reason == "unexpected end of data"
    return False


def refuse_undecodable(problem: str, path: Path, where: str) -> InputError:
    """The error that refuses a whole file because of a byte that is not UTF-8."""
    return InputError(f"{where}: {problem}; {_remedy('WINDOWS-1252', path)}")


def first_undecodable(path: Path) -> str | None:
    """The same as `undecodable` for a whole file, read line by line."""
    start = 0
    with path.open("rb") as file:
        while piece := file.readline(2**20):
            # A piece of a long line may end within a character, which is at most four bytes long.
            while not piece.endswith(b"\n") and is_cut_off(piece) and (more := file.read(1)):
                piece += more
            if (problem := undecodable(piece, start)) is not None:
                return problem
            start += len(piece)
    return None


class NotStrict(ValueError):
    """JSON with a duplicate key or a number too large for a float, which parsers silently change."""


def strict_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        NotStrict: an object repeats a key, or a number is out of range.
        ValueError, RecursionError: as in `json.loads`.
    """
    return json.loads(text, object_pairs_hook=_object, parse_float=_number)


def strict_problem(text: str | bytes) -> str | None:
    """The problem of a text that is valid JSON but not strict, else None."""
    try:
        strict_json(text)
    except NotStrict as error:
        return str(error)
    except (ValueError, RecursionError):
        return None
    return None


class LenientDecoder(json.JSONDecoder):
    """A decoder that records the first violation of strictness in `problem` and continues to the next row."""

    def __init__(self) -> None:
        self.problem = ""
        super().__init__(object_pairs_hook=self._noted_object, parse_float=self._noted_number)

    def _noted_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        try:
            return _object(pairs)
        except NotStrict as error:
            self.problem = self.problem or str(error)
            return dict(pairs)

    def _noted_number(self, text: str) -> float:
        try:
            return _number(text)
        except NotStrict as error:
            self.problem = self.problem or str(error)
            return 0.0


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise NotStrict(f"key {shorten(twice)} occurs twice in one object")
    return result


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise NotStrict(f"number {shorten(text)} is too large")
    return value


def _remedy(encoding: str, path: Path) -> str:
    name = path.name if re.fullmatch(r"[\w.+-]+", path.name) else "FILE"
    return f"convert it with `iconv -f {encoding} -t UTF-8 {name} > NEW`"
