"""A cache on disk of tensors that cost a forward pass: vision features of images, reference log-probs of answers.

It owns the files, their bound and their checksums; what goes into a key and when to ask is the caller's. Any number of
processes may share a directory and any may delete from it: an entry that is gone or damaged is computed again.
"""

import contextlib
import hashlib
import os
import re
import threading
import time
import uuid
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor

from sightline.errors import InputError
from sightline.records.store import cache_directory

#: Nothing by another name is ever deleted: the directory may be one that holds other things as well.
_OURS = re.compile(r"(?:^|/)([0-9a-f]{2})/(\1[0-9a-f]{14,}\.safetensors|\.\1[0-9a-f]{14,}\.[0-9a-f]{32}\.tmp)\Z")
_REFRESH = 60.0  # seconds; an entry used again sooner keeps its time, so that most reads write nothing
_ABANDONED = 3600.0  # seconds; no writer takes so long


class TensorCache:
    """Named tensors by the hash of what they were computed from; beyond `max_bytes` the least recently used go.

    `max_bytes` bounds the sizes of entries: strictly with one process; each further one may write an eighth (or one
    entry, if larger) before it looks again. `hits`, `misses` and `damaged` count look-ups, damaged ones as misses too.
    A full disk or a directory of no use stops nothing: what cannot be kept is computed, and one warning is given.
    A key is a digest in lower-case hex, of 16 digits or more; all methods raise ValueError for another.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory, self._max_bytes = directory, max_bytes
        self._left = 0  # bytes that may be written before the next walk
        self._lock, self._warned = threading.Lock(), False
        self.hits = self.misses = self.damaged = 0

    @property
    def hit_rate(self) -> float | None:
        """The share of look-ups that found their entry; None before the first."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else None

    def get(self, key: str) -> dict[str, Tensor] | None:
        """What was put under `key`, as contiguous tensors on the CPU, in the order of names; None if it is missing."""
        path, tensors = self._path(key), None
        try:
            with contextlib.suppress(FileNotFoundError):  # never put, or deleted meanwhile
                data = path.read_bytes()
                at, digits = _checksum(data)
                if data[at : at + 8] == digits:
                    # Copied to be aligned as computed ones are, lest sums differ in last bits.
                    tensors = _plain(load(data))
                    if abs(time.time() - path.stat().st_mtime) > _REFRESH:  # a time ahead of ours would outlive all
                        os.utime(path)
                else:
                    self.damaged += 1
                    path.unlink()
        except OSError as error:
            self._warn(error)
        self.hits += tensors is not None
        self.misses += tensors is None
        return tensors

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep a copy of `tensors` under `key`, unless they alone exceed the bound.

        RuntimeError for a sparse tensor, KeyError for a type that safetensors does not know (complex128).
        """
        path, data = self._path(key), bytearray(save(_plain(tensors), {"crc32": "00000000"}))
        at, digits = _checksum(data)
        data[at : at + 8] = digits
        # Not `records.store.atomic_write`: its temporary name is the same for all writers, and these run side by side.
        temporary = path.with_name(f".{key}.{uuid.uuid4().hex}.tmp")
        try:
            with self._lock:  # to the end: another thread's walk must see what room was made for
                if len(data) <= self._max_bytes:
                    self._make_room(len(data))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    temporary.write_bytes(data)
                    temporary.replace(path)  # not synced: what a power failure tears, the checksum finds
        except OSError as error:
            self._warn(error)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def fetch(self, key: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """As `get`, but computed and put if not there: the same bits either way. Errors as `put` and as `compute`."""
        tensors = self.get(key)
        if tensors is None:
            self.put(key, tensors := _plain(compute()))
        return tensors

    def _path(self, key: str) -> Path:
        if not re.fullmatch("[0-9a-f]{16,}", key):
            raise ValueError(f"{key!r} is no key; give a digest in lower-case hex, of 16 digits or more")
        return self._directory / key[:2] / f"{key}.safetensors"

    def _make_room(self, size: int) -> None:
        """Take `size` from what may be written; where that is used up, evict until there is room for a step again."""
        if size > self._left:
            step, entries = max(self._max_bytes // 8, size), sorted(self._entries())
            total = sum(entry[2] for entry in entries)
            for _, path, freed in entries:
                if total > self._max_bytes - step:
                    path.unlink(missing_ok=True)  # another process may have been faster
                    total -= freed
            self._left = step
        self._left -= size

    def _entries(self) -> Iterator[tuple[int, Path, int]]:
        """Last use, path and size of every entry; temporary files that a killed writer left are deleted."""
        paths = (Path(folder, name) for folder, _, names in os.walk(self._directory) for name in names)
        for path in (path for path in paths if _OURS.search(path.as_posix())):
            with contextlib.suppress(FileNotFoundError):  # evicted meanwhile, or renamed by its writer
                status = path.stat()
                if path.suffix != ".tmp":
                    yield status.st_mtime_ns, path, status.st_size
                elif time.time() - status.st_mtime > _ABANDONED:
                    path.unlink()

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"the cache in {self._directory} fails ({error.strerror}); the run goes on", stacklevel=3)


def open_cache() -> TensorCache:
    """The cache in the default directory, of at most `$SIGHTLINE_CACHE_GB` gigabytes (20).

    Raises:
        InputError: the variable is no number.
    """
    size = os.environ.get("SIGHTLINE_CACHE_GB", "20")
    try:
        return TensorCache(cache_directory(), max_bytes=int(float(size) * 1e9))
    except (ValueError, OverflowError):
        raise InputError(
            f"the environment variable SIGHTLINE_CACHE_GB is {size!r}; give a number of gigabytes"
        ) from None


def content_key(*parts: str | bytes | int | float | Tensor) -> str:
    """SHA-256 of parts, each with kind and length: ("ab", "c") and ("a", "bc") differ, as do 1, 1.0, True and "1".

    A tensor counts with its type, shape and bytes, not with its device or strides. TypeError for other parts.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            flat = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            kind, body = f"{part.dtype}{list(part.shape)}", flat.numpy().tobytes()
        elif isinstance(part, str | bytes | int | float):
            kind, body = type(part).__name__, part if isinstance(part, bytes) else repr(part).encode()
        else:
            raise TypeError(f"{type(part).__name__} cannot be part of a key: {part!r}")
        digest.update(f"{kind}:{len(body)}:".encode() + body)
    return digest.hexdigest()


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the CPU, in the order of names; safetensors would refuse tensors that share memory."""
    dense = torch.contiguous_format
    return {name: tensors[name].detach().to("cpu", copy=True, memory_format=dense) for name in sorted(tensors)}


def _checksum(data: bytes | bytearray) -> tuple[int, bytes]:
    """Where a file has its checksum, and the eight digits that must be there: over all other bytes."""
    at = data.find(b'"crc32":"') + 9  # no name of a tensor looks so: its quotes would be escaped
    return at, b"%08x" % zlib.crc32(memoryview(data)[at + 8 :], zlib.crc32(data[:at]))


T = TypeVar("T")


class Recent(Generic[T]):
    """Values by key, the longest unused forgotten first, `limit` bytes in all. Not for several threads."""

    def __init__(self, limit: int = 256 * 2**20) -> None:
        self._limit = limit
        self._held = 0
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def fetch(self, key: Hashable, make: Callable[[], tuple[T, int]]) -> T:
        """The value of `key`; where it is not here `make` gives it with its bytes."""
        if key in self._values:
            self._values.move_to_end(key)
        else:
            self._values[key] = made = make()
            self._held += made[1]
        value = self._values[key][0]
        while self._held > self._limit:  # a value larger than all room is not kept either
            self._held -= self._values.popitem(last=False)[1][1]
        return value
