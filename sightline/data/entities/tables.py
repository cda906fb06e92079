"""CSV files and JSON lines as rows of text, each with its place for errors. What the columns mean is `layouts`."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sightline.config.problems import shorten
from sightline.errors import InputError

Cells = dict[str, str]
_LABELS = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}


def csv_rows(path: Path) -> Iterator[tuple[str, Cells]]:
    """The rows of a CSV file with a header, by column, white space around values taken off.

    Raises:
        InputError: no such file, no UTF-8, no header, a column named twice, or a row of another length.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if not header or len(set(header)) < len(header):
                raise InputError(f"{path}: the header {shorten(header)} is empty or names a column twice; correct it")
            for cells in reader:
                where = f"{path} line {reader.line_num}"
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise InputError(f"{where}: {len(cells)} values for {len(header)} columns; correct the row")
                yield where, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a CSV file in UTF-8 ({error}); check the path") from error


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, which may be packed by gzip (`.gz`).

    Raises:
        InputError: no such file, damaged, or a line that is no JSON object.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path} line {number}", _object(line, f"{path} line {number}")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path} cannot be read as JSON lines ({error}); fetch the file again") from error


def cell_of(row: Cells, name: str, where: str) -> str:
    """A value that must be there."""
    if not row.get(name):
        raise InputError(f"{where}: there is no {name!r}; the columns are {', '.join(row)}")
    return row[name]


def label_of(value: object, name: str, where: str) -> bool:
    """1 for a match and 0 for none, as a number, a word or a truth value."""
    found = _LABELS.get(str(value).strip().lower())
    if found is None:
        raise InputError(f"{where}: {name} = {shorten(value)} is no label; write 1 for a match and 0 for none")
    return found


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); fetch the file again") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: {shorten(value)} is no JSON object; give one a line")
    return value
