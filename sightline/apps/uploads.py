"""Files that browsers send to a page: how many may wait, how large they may be together, and who may name them.

Gradio writes an upload to disk and gives its path to the browser, which sends the path back when it calls a function.
Only such a path is accepted, once. A file that no call names is removed after a minute.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from sightline.errors import InputError


class UploadRefused(Exception):
    """Why a file is not taken, as a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass
class Uploads:
    """The uploads of one page in `folder`. `waiting` is when each file came, by its resolved path."""

    folder: Path
    max_total: int
    count: int = 16
    seconds: float = 60.0
    waiting: dict[str, float] = field(default_factory=dict)
    _coming: dict[int, int] = field(default_factory=dict)
    _number: int = 0
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def coming(self, size: int) -> Iterator[None]:
        """Room for one upload of `size` bytes at most while it comes in; what it leaves behind unnamed is removed.

        Raises:
            UploadRefused: too many files, or too many bytes, wait or are coming in.
        """
        with self._lock:
            self._remove_strays()
            if len(self.waiting) + len(self._coming) >= self.count:
                raise UploadRefused(429, "Too many pictures are waiting; try again in a minute.")
            if _size_of(self.waiting) + sum(self._coming.values()) + size > self.max_total:
                raise UploadRefused(429, "The waiting pictures take all the room for uploads; try again in a minute.")
            self._number += 1
            number = self._number
            self._coming[number] = size
        try:
            yield
        finally:
            with self._lock:
                del self._coming[number]
                self._remove_strays()

    def add(self, answer: Any) -> None:
        """Note what an upload's answer names: one path.

        Raises:
            UploadRefused: it names several, or none.
        """
        if not isinstance(answer, list) or len(answer) != 1 or not self._holds(answer[0]):
            raise UploadRefused(413, "Send one picture at a time.")
        with self._lock:
            self.waiting[_key(answer[0])] = time.monotonic()

    def knows(self, path: object) -> bool:
        """Whether `path` is an upload that waits."""
        return self._holds(path) and _key(str(path)) in self.waiting

    def take(self, path: object, most: int) -> bytes:
        """The bytes of an upload, one more than `most` at most. The file is removed.

        Raises:
            InputError: `path` is no upload that waits.
        """
        with self._lock:
            known = isinstance(path, str) and self._holds(path) and self.waiting.pop(_key(path), None) is not None
            if not known:
                raise InputError("this picture was not sent to this page, or has waited too long; choose it again")
            place = Path(str(path))
            try:
                with place.open("rb") as file:
                    return file.read(most + 1)
            except OSError as error:
                raise InputError("the picture that was sent is gone; choose it again") from error
            finally:
                place.unlink(missing_ok=True)
                self._remove_strays()  # Gradio leaves an empty file for each one that it hands over

    def _holds(self, path: object) -> bool:
        """Whether a path is one of a plain file in the folder, links resolved."""
        if not isinstance(path, str) or "\0" in path:
            return False
        return _key(path).startswith(os.path.join(_key(self.folder), ""))  # noqa: PTH118 - with the separator

    def _remove_strays(self) -> None:
        """Remove what has waited too long and, while nothing comes in, what nobody can name."""
        now = time.monotonic()
        self.waiting = {path: came for path, came in self.waiting.items() if now - came <= self.seconds}
        if self._coming or not self.folder.is_dir():
            return
        for place in sorted(self.folder.rglob("*"), reverse=True):  # what is in a folder comes before the folder
            if place.is_dir() and not place.is_symlink():
                _remove_empty(place)
            elif _key(place) not in self.waiting:
                place.unlink(missing_ok=True)


def _key(path: str | Path) -> str:
    return os.path.realpath(path)


def _size_of(paths: dict[str, float]) -> int:
    sizes = 0
    for path in paths:
        place = Path(path)
        sizes += place.stat().st_size if place.is_file() else 0
    return sizes


def _remove_empty(place: Path) -> None:
    try:
        place.rmdir()
    except OSError:  # it is not empty
        return
