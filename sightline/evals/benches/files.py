"""Official files in the user's folder, found by name; errors give the source of missing ones.

Benchmarks read the files themselves, or with `json_lines`.
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
        InputError: there is none; the error names the file, the folder, and where the benchmark's owners publish it.
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
        InputError: a line is not a JSON object.
    """
    with path.open("rb") as file:
        is_list = file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")
    if is_list:
        value = _parse(path.read_bytes(), str(path))
        rows = ((f"{path} entry {number}", row) for number, row in enumerate(value, 1))
    else:
        rows = ((f"{path} line {number}", _parse(line, f"{path} line {number}")) for number, line in _lines(path))
    for where, row in rows:
        if not isinstance(row, dict):
            raise InputError(f"{where}: not a JSON object; fetch the file again from where its owners publish it")
        yield where, row


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `json_lines`; also reads one JSON object {id: object}, whose objects get their key as `id`.

    Raises:
        InputError: the file does not exist or has another layout.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file; check the path")
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    if not _begins_object(first):
        yield from json_lines(path)
        return
    for key, row in _parse(path.read_bytes(), str(path)).items():
        if not isinstance(row, dict):
            raise InputError(f"{path}: {key!r} is not a JSON object; give JSON lines, a list, or {{id: object}}")
        yield f"{path} {key}", {**row, "id": key}


def _begins_object(line: bytes) -> bool:
    """Whether the first line starts one object that is the whole file: the line is incomplete, or holds objects."""
    try:
        value = json.loads(line)
    except ValueError:
        return line.lstrip().startswith(b"{")
    return isinstance(value, dict) and bool(value) and all(isinstance(inner, dict) for inner in value.values())


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _parse(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)  # detects the encoding, with or without a byte order mark
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); fetch the file again") from error
