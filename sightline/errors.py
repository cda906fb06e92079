"""What ends a command with one sentence and exit code 2: a user's mistake, and a disk that cannot be written.

`InputError` is the one exception of a mistake. `disk_problem` says in a sentence what the system reports of a disk.
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
    errno.ENOENT: "the file or its folder does not exist any more",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "symbolic links lead in a circle",
    errno.EIO: "the device reports an error",
    errno.ESTALE: "the network file system has lost it",
    errno.EMFILE: "too many files are open",
}
#: How libraries that raise no OSError quote one: safetensors, SQLite, Arrow.
_QUOTED = re.compile(r"(?:os error|code:|Errno) (\d+)")
_FULL = re.compile(r"no space left on device|disk is full", re.IGNORECASE)


class InputError(Exception):
    """Bad input from outside: one clear sentence with the file, the row, the value and the remedy."""


def disk_problem(error: BaseException, place: Path | None = None) -> str | None:
    """What the disk refused, and where, as a sentence with the remedy; None where the error is of another sort.

    `place` is what was written or read where the error names no path.
    """
    number = _number(error)
    if number is None:
        return None
    named = getattr(error, "filename", None)
    where = str(named) if isinstance(named, str | Path) else f"a file in {place}" if place is not None else "a file"
    return (
        f"{where} cannot be read or written: {_REASONS[number]}; nothing finished was lost: correct this and run the"
        " same command again"
    )


def _number(error: BaseException) -> int | None:
    """The system's number of the error, if it is one of a disk."""
    if isinstance(error, ConnectionError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _REASONS else None
    text = str(error)
    if _FULL.search(text):
        return errno.ENOSPC
    quoted = _QUOTED.search(text)
    return int(quoted[1]) if quoted and int(quoted[1]) in _REASONS else None
