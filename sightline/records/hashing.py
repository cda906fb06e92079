"""Content hashes (SHA-256) of values, files and directories, which decide whether a stage must run again.

They cover contents and relative names, never times or absolute paths. `manifest` builds a stage's key from them.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from sightline.errors import InputError

#: (device, inode, size, mtime, ctime) -> hash, for this process. Programs cannot set the ctime.
_known: dict[tuple[int, int, int, int, int], str] = {}
_SETTLED = 2.0  # seconds; a more recent file could change again within one tick of the file system's clock


def hash_json(value: object) -> str:
    """The hash of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """The hash of a file's bytes, cached until the file changes.

    Raises:
        InputError: the file is missing or not regular (reading a FIFO or a device may never end).
    """
    try:
        if kind := special_kind(path.stat().st_mode):
            raise InputError(f"{path} is {kind} and not a regular file; check the path")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if identity in _known:
                return _known[identity]
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path") from error
    if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED:
        _known[identity] = digest
    return digest


def hash_tree(directory: Path, *, leave_out: frozenset[str] = frozenset()) -> str:
    """The hash of all files below a directory with their relative paths, except hidden files and `__pycache__`.

    `leave_out` names top-level files to ignore. Links are followed; broken links, loops, FIFOs, sockets and devices are
    ignored.

    Raises:
        InputError: the directory does not exist.
    """
    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory; check the path")
    digest = hashlib.sha256()
    for path in _files(directory):
        name = path.relative_to(directory).as_posix()
        if name not in leave_out:
            digest.update(f"{len(name)}:{name}:{hash_file(path)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def special_kind(mode: int) -> str:
    """The kind of a file that is not regular, by its mode; empty for a regular file."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return "" if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), "a special file")


def _files(directory: Path) -> Iterator[Path]:
    """Files below a directory, ordered by name."""
    seen: set[str] = set()
    for root, folders, files in os.walk(directory, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link to a parent folder would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        yield from (Path(root, name) for name in sorted(files) if not name.startswith(".") and _holds(root, name))


def _holds(root: str, name: str) -> bool:
    """Whether it is a regular file, links followed; `hash_file` reports a file that cannot be accessed."""
    path = Path(root, name)
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return not path.is_symlink()
