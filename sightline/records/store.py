"""Storage of rows and JSON: streamed reading, append-only and atomic writing, safe against a kill at any moment.

It depends on no particular record type and keeps no index. `manifest` records the provenance of a directory.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ValidationError

from sightline.config.problems import describe
from sightline.errors import InputError
from sightline.records.decoding import (
    BYTE_ORDER_MARK,
    is_cut_off,
    refuse_undecodable,
    require_text,
    strict_problem,
    undecodable,
)

T = TypeVar("T", bound=BaseModel)

MAX_LINE = 64 * 2**20  # bytes; a longer line is not a row and must not be read into memory whole


def read_rows(path: Path, row_type: type[T], *, allow_torn_tail: bool = False) -> Iterator[T]:
    """The rows of a JSONL file in order, one at a time; blank lines are skipped.

    A last line without a newline that is not complete JSON was torn by a kill. It is an error, or skipped with
    `allow_torn_tail`; `append_rows` removes it.

    Raises:
        InputError: the file is missing, compressed or not UTF-8 (raised at the call); a line is not JSON, not a valid
            row, or repeats a key (with the line number).
    """
    return (row for _, row in numbered_rows(path, row_type, allow_torn_tail=allow_torn_tail))


def numbered_rows(path: Path, row_type: type[T], *, allow_torn_tail: bool = False) -> Iterator[tuple[int, T]]:
    """The same as `read_rows`, each row with its line number from 1."""
    _require_file(path)
    require_text(path)
    return ((number, row) for number, _, row in placed_rows(path, row_type, allow_torn_tail))


def sorted_rows(
    path: Path, row_type: type[T], key: Callable[[T], str | None], *, allow_torn_tail: bool = False
) -> Iterator[T]:
    """The rows in the order of `key`, without those whose key is None; the file is read twice.

    Memory holds the keys and the row offsets, not the rows. Errors are those of `read_rows`, raised at the first row.
    """
    _require_file(path)
    require_text(path)
    keyed = ((key(row), start) for _, start, row in placed_rows(path, row_type, allow_torn_tail))
    places = sorted((name, start) for name, start in keyed if name is not None)
    with path.open("rb") as file:
        for _, start in places:
            file.seek(start)
            line = file.readline(MAX_LINE)
            yield row_type.model_validate_json(line if start else line.removeprefix(BYTE_ORDER_MARK))


def placed_rows(path: Path, row_type: type[T], allow_torn_tail: bool = False) -> Iterator[tuple[int, int, T]]:
    """Each row with its line number and the byte offset of the line; errors as of `read_rows`, all at the first row."""
    with path.open("rb") as file:
        number, start, end = 0, 0, 0
        while line := file.readline(MAX_LINE):
            number, start, end = number + 1, end, end + len(line)
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                raise InputError(f"{path} line {number}: longer than {MAX_LINE} bytes; is this a JSONL file?")
            whole = line
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if not line.strip():
                continue
            if allow_torn_tail and _is_torn(line):
                return
            try:
                row = row_type.model_validate_json(line)
            except ValidationError as error:
                where = f"{path} line {number}"
                if not is_cut_off(line) and (problem := undecodable(whole, start)) is not None:
                    raise refuse_undecodable(problem, path, where) from error
                raise InputError(f"{where}: {_line_problem(line, error, row_type)}") from error
            if (problem := strict_problem(line)) is not None:
                raise InputError(f"{path} line {number}: {problem}; correct the row or delete it")
            yield number, start, row


def append_rows(path: Path, rows: Iterable[BaseModel]) -> int:
    """Append rows and sync them to disk; returns the count. Creates the file and its folder.

    A torn last line is removed first; a complete one without a newline is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    if not is_new:
        _repair_tail(path)
    with name_in_errors(path), path.open("ab") as file:
        count = _write_lines(file, rows)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        _sync_directory(path.parent)
    return count


def set_torn_tail_aside(path: Path) -> Path | None:
    """Move a torn last line to a file beside `path` with the suffix `.torn`; None if there is no torn line.

    Text typed by people is worth keeping even in part; `append_rows` would delete it.
    """
    with path.open("r+b") as file:
        start = _last_line(file)
        tail = file.read(MAX_LINE)
        if not tail or not _is_torn(tail):
            return None
        aside = path.with_name(f"{path.name}.torn")
        with aside.open("ab") as kept:
            kept.write(tail + b"\n")
            kept.flush()
            os.fsync(kept.fileno())
        file.truncate(start)
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(path.parent)
    return aside


def write_rows(path: Path, rows: Iterable[BaseModel]) -> int:
    """Write a JSONL file atomically: readers see the old file or the new one, never a part. Returns the count.

    `rows` may be read from `path` itself.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        return _write_lines(file, rows)


def write_json(path: Path, value: object) -> None:
    """Write indented JSON atomically; pydantic models and paths may occur anywhere in `value`.

    Raises:
        ValueError: a number is not finite, which JSON cannot represent (use None).
    """
    text = json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False, indent=2)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        InputError: the file is missing or not JSON.
    """
    _require_file(path)
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:  # bad JSON or bad UTF-8
        raise InputError(f"{path} is not JSON ({error}); delete it or restore it") from error


@contextmanager
def atomic_write(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the body succeeds and is deleted if it fails.

    The name is hidden and always the same, so the next attempt overwrites what a kill leaves behind. Without `sync` the
    file survives a kill but not a power failure; use that for many small files that can be created again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with name_in_errors(path):
            yield temporary
            if sync:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):  # the folder may be gone; the body's own error must be reported
            temporary.unlink(missing_ok=True)
    if sync:
        _sync_directory(path.parent)


@contextmanager
def private_umask() -> Iterator[int]:
    """Create files with mode 0600 and folders with mode 0700 while the body runs; yields the previous umask."""
    before = os.umask(0o077)
    try:
        yield before
    finally:
        os.umask(before)


def link_or_copy(origin: Path, target: Path) -> None:
    """Create `target` as a hard link to the file `origin`, or as a copy if that is not possible.

    Symbolic links are resolved first: a relative one would point elsewhere from its new folder.
    """
    file = origin.resolve(strict=True)
    with atomic_write(target, sync=False) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(file, temporary)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, temporary)


@contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Add `path` to disk errors of the body: a failed write to an open file names no path."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file in it")
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path, or run the command that creates it")


def _write_lines(file: IO[bytes], rows: Iterable[BaseModel]) -> int:
    count = 0
    for row in rows:
        file.write(row.model_dump_json().encode() + b"\n")
        count += 1
    return count


def _is_torn(line: bytes) -> bool:
    """Whether a line without a newline is an incomplete row: no proper prefix of a JSON object is JSON."""
    if line.endswith(b"\n"):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _repair_tail(path: Path) -> None:
    """Make the file end in a newline: remove a torn last line, or complete one that only lacks its newline."""
    with path.open("r+b") as file:
        start = _last_line(file)
        tail = file.read(MAX_LINE)
        if not tail:
            return
        if _is_torn(tail):
            file.truncate(start)
        else:
            file.seek(0, os.SEEK_END)
            file.write(b"\n")


def _last_line(file: IO[bytes]) -> int:
    """The offset behind the last newline, searched from the end; the file is positioned there."""
    start = file.seek(0, os.SEEK_END)
    while start > 0:
        step = min(start, 65536)
        file.seek(start - step)
        newline = file.read(step).rfind(b"\n")
        if newline >= 0:
            start += newline + 1 - step
            break
        start -= step
    return file.seek(start)


def _line_problem(line: bytes, error: ValidationError, row_type: type[BaseModel]) -> str:
    if error.errors(include_url=False)[0]["type"] != "json_invalid":
        return f"{describe(error, row_type)}; correct the row or delete it"
    if _is_torn(line):
        return "the row is truncated; run the command that writes it again, or delete the line"
    shown = line.strip().decode("utf-8", errors="replace")[:60]
    return f"not JSON, {shown!r}; correct the line or delete it"


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r}")


def _sync_directory(directory: Path) -> None:
    """Make the directory entry of a new or renamed file durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_directory() -> Path:
    """`$SIGHTLINE_CACHE`, else `$XDG_CACHE_HOME/sightline`, else `~/.cache/sightline`; RuntimeError without a home."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if chosen := os.environ.get("SIGHTLINE_CACHE"):
        return Path(chosen).expanduser()
    return (base if base.is_absolute() else Path.home() / ".cache") / "sightline"  # XDG says to ignore relative paths
