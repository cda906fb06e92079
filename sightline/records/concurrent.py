"""Atomic writes to a file by several processes at once, with removal of what killed processes leave behind.

`store.atomic_write` has one temporary name per file and so allows one writer at a time. Here each writer takes a
numbered name and holds a lock on it while it writes, so the next writer can tell an abandoned file from one in use.
"""

import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

#: Seconds after which a temporary file without a lock is abandoned: no writer takes longer.
ABANDONED = 3600.0
#: Names of temporary files: with the number whose lock a writer holds, or, without locks, with 32 random digits.
_TEMPORARY = re.compile(r"\..+\.(?:(?P<number>\d{1,6})|[0-9a-f]{32})\.tmp")
_ALWAYS_SEARCHED = 8  # numbers always checked, since a free number may precede a taken one


@contextmanager
def concurrent_atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` if the body succeeds and is deleted if it fails.

    The file survives a kill but not a power failure. Temporary files that killed processes left for `path` are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, descriptor = _claim(path)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    remove_leftovers(path)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of `path` whose writers have ended."""
    for number in count():
        temporary = _name(path, number)
        if not temporary.exists():
            if number >= _ALWAYS_SEARCHED:
                return
            continue
        _remove_unlocked(temporary)


def remove_leftovers_below(folder: Path) -> None:
    """Remove the temporary files in the subfolders of `folder` whose writers have ended.

    It reads names, and the status of temporary files alone, so a large folder costs one listing of each subfolder. What
    cannot be listed or removed is left.
    """
    with suppress(OSError):
        for parent in [entry for entry in folder.iterdir() if entry.is_dir()]:
            with suppress(OSError):
                for path in parent.glob(".*.tmp"):
                    if (found := _TEMPORARY.fullmatch(path.name)) is not None:
                        _remove_abandoned(path, is_locked=found["number"] is not None)


def _remove_abandoned(temporary: Path, *, is_locked: bool) -> None:
    """Remove a temporary file whose writer has ended; one whose writers hold no lock, after `ABANDONED` seconds."""
    if is_locked:
        _remove_unlocked(temporary)
        return
    with suppress(OSError):
        if time.time() - temporary.stat().st_mtime > ABANDONED:
            temporary.unlink()


def _remove_unlocked(temporary: Path) -> None:
    with suppress(OSError):  # another process removed it, or the folder is read-only
        descriptor = os.open(temporary, os.O_RDWR)
        try:
            if _lock(descriptor) and _is_at(descriptor, temporary):
                temporary.unlink()
        finally:
            os.close(descriptor)


def _claim(path: Path) -> tuple[Path, int]:
    """A temporary path that no other process writes to, and the descriptor that holds its lock."""
    number = 0
    while True:
        temporary = _name(path, number)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _lock(descriptor)
        except OSError:  # a file system without locks
            os.close(descriptor)
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
            return temporary, os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666)
        if locked and _is_at(descriptor, temporary):
            return temporary, descriptor
        os.close(descriptor)
        if not locked:
            number += 1


def _name(path: Path, number: int) -> Path:
    return path.with_name(f".{path.name}.{number}.tmp")


def _lock(descriptor: int) -> bool:
    """Whether the file was locked; False if another process holds it, OSError if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file still has that name: it may have been renamed or removed before it was locked."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    status = os.fstat(descriptor)
    return (status.st_dev, status.st_ino) == (named.st_dev, named.st_ino)
