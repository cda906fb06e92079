"""Official files in the user's folder: found by their names, and named with their source where they are missing.

It knows no benchmark. Each benchmark reads what it found in its own way, or by `json_lines`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sightline.errors import InputError
from sightline.evals.registry import get_entry


def official_file(benchmark: str, folder: Path, *names: str) -> Path:
    """The first of `names` that is a file in `folder` or at most two folders below it.

    Raises:
        InputError: none is there; the sentence says which, where, and where the benchmark's owners publish it.
    """
    for name in names:
        for above in ("", "*/", "*/*/"):
            found = next((path for path in sorted(folder.glob(above + name)) if path.is_file()), None)
            if found is not None:
                return found
    source = get_entry(benchmark).files
    raise InputError(f"{benchmark} needs {' or '.join(names)} in {folder}; its owners publish it at {source}")


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, or of one JSON list, each with its place for errors.

    Raises:
        InputError: a line that is no JSON object.
    """
    with path.open("rb") as file:
        is_list = file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")
    if is_list:
        value = _parsed(path.read_bytes(), str(path))
        rows = ((f"{path} entry {number}", row) for number, row in enumerate(value, 1))
    else:
        rows = ((f"{path} line {number}", _parsed(line, f"{path} line {number}")) for number, line in _lines(path))
    for where, row in rows:
        if not isinstance(row, dict):
            raise InputError(f"{where}: not a JSON object; fetch the file again from where its owners publish it")
        yield where, row


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `json_lines`, and of one JSON object {id: object} the objects, each with its key as `id`.

    Raises:
        InputError: no such file, or it holds something else.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file; check the path")
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    if not _begins_object(first):
        yield from json_lines(path)
        return
    for key, row in _parsed(path.read_bytes(), str(path)).items():
        if not isinstance(row, dict):
            raise InputError(f"{path}: {key!r} is no JSON object; give JSON lines, a list, or {{id: object}}")
        yield f"{path} {key}", {**row, "id": key}


def _begins_object(line: bytes) -> bool:
    """Whether a first line belongs to one object that is the whole file: it is cut, or holds objects."""
    try:
        value = json.loads(line)
    except ValueError:
        return line.lstrip().startswith(b"{")
    return isinstance(value, dict) and bool(value) and all(isinstance(inner, dict) for inner in value.values())


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)  # whose encoding it finds, a byte order mark included
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); fetch the file again") from error
