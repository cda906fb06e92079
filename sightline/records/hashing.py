"""Content hashes of values, files and directories: what decides whether a stage must run again.

SHA-256 throughout, of contents and relative names alone, never of times or places. What makes a stage's key of them is
`manifest`.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from sightline.errors import InputError

#: (device, inode, size, mtime, ctime) -> hash, for this process. The change time cannot be set by hand.
_known: dict[tuple[int, int, int, int, int], str] = {}
_SETTLED = 2.0  # seconds; a file changed so lately could change again within one tick of the file system's clock


def hash_json(value: object) -> str:
    """The hash of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """The hash of a file's bytes; read again only if the file changed.

    Raises:
        InputError: no such file, or one that is not regular: reading a FIFO or a device may never end.
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
    """The hash of every file below a directory with its relative path; hidden files and caches do not count.

    `leave_out` names files at the top that do not count either. Links are followed; those that lead nowhere or in a
    circle hold nothing and do not count, and neither do FIFOs, sockets and devices, which are not opened.

    Raises:
        InputError: no such directory.
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
    """What a file is that is not regular, by its mode; empty for a regular one."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return "" if stat.S_ISREG(mode) else kinds.get(stat.S_IFMT(mode), "a special file")


def _files(directory: Path) -> Iterator[Path]:
    """Files below a directory in an order that depends on their names alone."""
    seen: set[str] = set()
    for root, folders, files in os.walk(directory, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link to a folder above would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        yield from (Path(root, name) for name in sorted(files) if not name.startswith(".") and _holds(root, name))


def _holds(root: str, name: str) -> bool:
    """Whether it is a regular file, also behind links; one that cannot be looked at is left to `hash_file`."""
    path = Path(root, name)
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return not path.is_symlink()
