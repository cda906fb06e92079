"""Errors that end a command with one sentence and exit code 2: invalid input and disk failures.

`InputError` is the only exception for invalid input. `disk_problem` turns an operating system error into a sentence.
"""

import errno
import re
from pathlib import Path

_REASONS = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "the operation is not permitted",
    errno.ENOENT: "the file or its folder no longer exists",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "symbolic links form a loop",
    errno.EIO: "the device reports an error",
    errno.ESTALE: "the network file system no longer has it",
    errno.EMFILE: "too many files are open",
}
#: Error codes quoted in the messages of libraries that raise no OSError: safetensors, SQLite, Arrow.
_QUOTED = re.compile(r"(?:os error|code:|Errno) (\d+)")
_FULL = re.compile(r"no space left on device|disk is full", re.IGNORECASE)


class InputError(Exception):
    """Invalid input: one sentence that names the file, the row, the value and the remedy."""


def disk_problem(error: BaseException, place: Path | None = None) -> str | None:
    """A sentence with the path, the disk's error and the remedy; None if `error` is not a disk error.

    `place` is the directory that was read or written; it is used if the error names no path.
    """
    number = _number(error)
    if number is None:
        return None
    named = getattr(error, "filename", None)
    where = str(named) if isinstance(named, str | Path) else f"a file in {place}" if place is not None else "a file"
    return (
        f"{where} cannot be read or written: {_REASONS[number]}; completed work is kept: fix this and run the same"
        " command again"
    )


def _number(error: BaseException) -> int | None:
    """The errno of a disk error, else None."""
    if isinstance(error, ConnectionError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _REASONS else None
    text = str(error)
    if _FULL.search(text):
        return errno.ENOSPC
    quoted = _QUOTED.search(text)
    return int(quoted[1]) if quoted and int(quoted[1]) in _REASONS else None
