"""The log of a served model: `requests-NUMBER.jsonl`, `feedback.jsonl` and, optionally, the pictures.

Rows are synced to disk, and files rotate by size; reading resumes at a `LogPosition`. The statistics of texts and
pictures are cheap enough to compute while a request waits, need no model, and allow monitoring of redacted logs.
`apps.serve` writes logs and `apps.monitor` reads them.
"""

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import ValidationError

from sightline.config.problems import describe
from sightline.errors import InputError
from sightline.records.ratings import BUCKETS, Feedback, LoggedPicture, LoggedRequest, TextStats
from sightline.records.rows import Row
from sightline.records.store import append_rows, atomic_write, numbered_rows

FEEDBACK, PICTURES = "feedback.jsonl", "images"
_FILE = re.compile(r"^requests-(\d{6,})\.jsonl$")


class LogPosition(Row):
    """A position in a log: all earlier files and `byte` bytes of file number `file` have been read."""

    file: int = 0
    byte: int = 0


class RequestLog:
    """A log writer for one process with any number of threads. A file of `max_bytes` or more is full."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        try:
            (directory / PICTURES).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"log directory {directory} cannot be created ({error.strerror}); choose another"
            ) from error
        self.directory, self._max_bytes, self._lock = directory, max_bytes, threading.Lock()

    def add(self, row: LoggedRequest) -> None:
        """Append a row and sync it to disk."""
        with self._lock:
            number = max(log_numbers(self.directory), default=1)
            path = log_file(self.directory, number)
            if path.exists() and path.stat().st_size >= self._max_bytes:
                path = log_file(self.directory, number + 1)
            append_rows(path, [row])

    def add_feedback(self, row: Feedback) -> None:
        """Append feedback on an answer."""
        with self._lock:
            append_rows(self.directory / FEEDBACK, [row])

    def keep(self, sha256: str, data: bytes) -> None:
        """Store a picture's bytes under their hash."""
        path = picture_file(self.directory, sha256)
        with self._lock:
            if not path.exists():
                with atomic_write(path) as temporary:
                    temporary.write_bytes(data)


def is_log(directory: Path) -> bool:
    """Whether a folder holds the log of a served model."""
    return directory.is_dir() and bool(log_numbers(directory))


def log_numbers(directory: Path) -> list[int]:
    """The numbers of a log's files, ascending."""
    return sorted(int(found.group(1)) for path in directory.iterdir() if (found := _FILE.match(path.name)))


def log_file(directory: Path, number: int) -> Path:
    """The log file of this number."""
    return directory / f"requests-{number:06d}.jsonl"


def picture_file(directory: Path, sha256: str) -> Path:
    """The file of the picture with this hash, without a suffix, since its bytes give the format."""
    return directory / PICTURES / sha256[:32]


def read_log(directory: Path, since: LogPosition | None = None) -> Iterator[tuple[LoggedRequest, LogPosition]]:
    """The rows after `since`, in order, each with the position behind it. An incomplete last row is left for later.

    Raises:
        InputError: there is no log (raised at the call), or a row is invalid.
    """
    if not is_log(directory):
        raise InputError(
            f"{directory} holds no log of a served model; create one with `sightline serve --log {directory}`"
        )
    return _rows(directory, since or LogPosition())


def read_feedback(directory: Path) -> Iterator[tuple[int, Feedback]]:
    """The feedback rows with their line numbers; empty if there is no feedback."""
    path = directory / FEEDBACK
    return numbered_rows(path, Feedback, allow_torn_tail=True) if path.exists() else iter(())


def _rows(directory: Path, since: LogPosition) -> Iterator[tuple[LoggedRequest, LogPosition]]:
    for number in log_numbers(directory):
        if number < since.file:
            continue
        path = log_file(directory, number)
        start = since.byte if number == since.file else 0
        if path.stat().st_size < start:
            raise InputError(f"{path} is shorter than when it was last read; restore it, or choose another --out")
        with path.open("rb") as file:
            file.seek(start)
            while (line := file.readline()).endswith(b"\n"):
                try:
                    row = LoggedRequest.model_validate_json(line)
                except ValidationError as error:
                    where = f"{path} byte {start}"
                    raise InputError(
                        f"{where}: {describe(error, LoggedRequest)}; correct the row or delete it"
                    ) from error
                start += len(line)
                yield row, LogPosition(file=number, byte=start)


_WORD = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W_]+)*")
#: Words counted per text: a prompt may be a megabyte.
_MOST_WORDS = 5000
#: Phrases that begin a refusal, in English; this list is Sightline's.
_REFUSAL = re.compile(
    r"\b(?:i(?:\s+am|['\N{RIGHT SINGLE QUOTATION MARK}]m)\s+(?:sorry|unable|not\s+able)"
    r"|i\s+(?:can\s?not|can['\N{RIGHT SINGLE QUOTATION MARK}]t|could\s+not|won['\N{RIGHT SINGLE QUOTATION MARK}]t"
    r"|will\s+not)"
    r"\s+(?:help|assist|answer|see|view|describe|identify|provide|comply|do|tell|say)"
    r"|as\s+an?\s+(?:ai|language\s+model|assistant)\b)",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 200  # characters; later, such a phrase is part of an answer
_PLAIN = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_LOOK = 256  # pixels of the longer side of the copy from which appearance is measured


def text_stats(text: str) -> TextStats:
    """Count the words of a text, in total and by hash bucket; the hash is the same in every process."""
    words = [word.lower() for word in _WORD.findall(text)[:_MOST_WORDS]]
    counts = Counter(hashlib.blake2b(word.encode(), digest_size=4).digest() for word in words)
    buckets = Counter[int]()
    for digest, count in counts.items():
        buckets[int.from_bytes(digest, "little") % BUCKETS] += count
    return TextStats(words=len(words), buckets=dict(sorted(buckets.items())))


def plain_yes(text: str) -> bool | None:
    """Whether an answer begins with yes (True) or no (False); None for any other answer."""
    found = _PLAIN.match(text)
    return None if found is None else found.group(1).lower() == "yes"


def is_refusal(text: str) -> bool:
    """Whether an answer begins with a refusal (a list of English phrases)."""
    return _REFUSAL.search(text[:_REFUSAL_WITHIN]) is not None


def measure_picture(image: Image.Image, data: bytes) -> LoggedPicture:
    """Measure an RGB image whose file has the bytes `data`; appearance is measured on a small copy."""
    small = image.copy()
    small.thumbnail((_LOOK, _LOOK), Image.Resampling.BOX)
    luma = np.asarray(small.convert("L"), dtype=np.float64) / 255
    saturation = np.asarray(small.convert("HSV"), dtype=np.float64)[..., 1] / 255
    steps = np.concatenate([np.abs(np.diff(luma, axis=axis)).ravel() for axis in (0, 1)])
    return LoggedPicture(
        sha256=hashlib.sha256(data).hexdigest(),
        width=image.width,
        height=image.height,
        brightness=_rounded(luma.mean()),
        contrast=_rounded(luma.std()),
        saturation=_rounded(saturation.mean()),
        detail=_rounded(steps.mean() if steps.size else 0.0),
    )


def _rounded(value: float) -> float:
    """Six digits: precise enough, and rows stay short."""
    return round(float(value), 6)
