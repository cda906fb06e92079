"""A disk cache of tensors that cost a forward pass (vision features, reference log-probs), and an LRU cache in memory.

The cache manages files, their total size and checksums; callers define the keys. Any number of processes may share a
directory and any may delete from it: a missing or damaged entry is computed again.
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
from statistics import median
from typing import Generic, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor

from sightline.errors import InputError
from sightline.records.store import cache_directory

#: Files with other names are never deleted: the directory may hold other things as well.
_OURS = re.compile(r"(?:^|/)([0-9a-f]{2})/(\1[0-9a-f]{14,}\.safetensors|\.\1[0-9a-f]{14,}\.[0-9a-f]{32}\.tmp)\Z")
_REFRESH = 60.0  # seconds; an entry used again sooner keeps its time stamp, so that most reads write nothing
_ABANDONED = 3600.0  # seconds; no writer takes longer


class TensorCache:
    """Named tensors by a hash of what they were computed from; beyond `max_bytes` the least recently used are evicted.

    `max_bytes` bounds the total size of entries: strictly with one process; each further one may write an eighth (or
    one entry, if larger) before it checks again. `hits`, `misses` and `damaged` count look-ups; damaged ones are also
    misses. A full disk or an unusable directory stops nothing: values are computed, and one warning is given.
    A key is a lower-case hex digest of at least 16 digits; all methods raise ValueError for other keys.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory, self._max_bytes = directory, max_bytes
        self._left = 0  # bytes that may be written before the next scan
        self._lock, self._warned = threading.Lock(), False
        self.hits = self.misses = self.damaged = 0
        self.costs = WriteCosts()

    @property
    def hit_rate(self) -> float | None:
        """The fraction of look-ups that found their entry; None before the first."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else None

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The entry of `key` as contiguous CPU tensors, sorted by name; None if it is missing."""
        path, tensors = self._path(key), None
        try:
            with contextlib.suppress(FileNotFoundError):  # never put, or deleted meanwhile
                data = path.read_bytes()
                at, digits = _checksum(data)
                if data[at : at + 8] == digits:
                    # Copied for the alignment of computed tensors; otherwise sums may differ in the last bits.
                    tensors = _plain(load(data))
                    if abs(time.time() - path.stat().st_mtime) > _REFRESH:  # also resets a time in the future
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
        """Store a copy of `tensors` under `key`, unless they alone exceed the bound.

        Raises RuntimeError for a sparse tensor, KeyError for a dtype that safetensors does not support (complex128).
        """
        path, data = self._path(key), bytearray(save(_plain(tensors), {"crc32": "00000000"}))
        at, digits = _checksum(data)
        data[at : at + 8] = digits
        # Not the atomic write of `records.store`: its temporary name is the same for all, and writers run in parallel.
        temporary = path.with_name(f".{key}.{uuid.uuid4().hex}.tmp")
        try:
            with self._lock:  # until the file exists, so that another thread's scan sees it
                if len(data) <= self._max_bytes:
                    self._make_room(len(data))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    temporary.write_bytes(data)
                    temporary.replace(path)  # not synced: the checksum detects torn files
        except OSError as error:
            self._warn(error)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def fetch(self, key: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """As `get`, but a missing entry is computed and stored; the same bits either way. Errors as in `put`."""
        tensors = self.get(key)
        if tensors is None:
            self.put(key, tensors := _plain(compute()))
        return tensors

    def _path(self, key: str) -> Path:
        if not re.fullmatch("[0-9a-f]{16,}", key):
            raise ValueError(f"{key!r} is not a key; give a lower-case hex digest of at least 16 digits")
        return self._directory / key[:2] / f"{key}.safetensors"

    def _make_room(self, size: int) -> None:
        """Reserve `size` bytes; if the reserve is used up, evict until the next eighth of the bound is free."""
        if size > self._left:
            step, entries = max(self._max_bytes // 8, size), sorted(self._entries())
            total = sum(entry[2] for entry in entries)
            for _, path, freed in entries:
                if total > self._max_bytes - step:
                    path.unlink(missing_ok=True)  # another process may have deleted it
                    total -= freed
            self._left = step
        self._left -= size

    def _entries(self) -> Iterator[tuple[int, Path, int]]:
        """Yield last use, path and size of every entry, and delete temporary files of killed writers."""
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
            warnings.warn(
                f"the cache in {self._directory} fails ({error.strerror}); continuing without it", stacklevel=3
            )


def open_cache() -> TensorCache:
    """Open the cache in the default directory, of at most `$SIGHTLINE_CACHE_GB` gigabytes (default 20).

    Raises:
        InputError: the variable is not a number.
    """
    size = os.environ.get("SIGHTLINE_CACHE_GB", "20")
    try:
        return TensorCache(cache_directory(), max_bytes=int(float(size) * 1e9))
    except (ValueError, OverflowError):
        raise InputError(
            f"the environment variable SIGHTLINE_CACHE_GB is {size!r}; give a number of gigabytes"
        ) from None


def content_key(*parts: str | bytes | int | float | Tensor) -> str:
    """SHA-256 of parts, each with type and length: ("ab", "c") and ("a", "bc") differ, as do 1, 1.0, True and "1".

    A tensor counts by dtype, shape and bytes, not by device or strides. Raises TypeError for other parts.
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
    """Contiguous CPU copies, sorted by name; safetensors refuses tensors that share memory."""
    dense = torch.contiguous_format
    return {name: tensors[name].detach().to("cpu", copy=True, memory_format=dense) for name in sorted(tensors)}


def _checksum(data: bytes | bytearray) -> tuple[int, bytes]:
    """The offset of a file's checksum, and its expected eight digits: the CRC-32 of all other bytes."""
    at = data.find(b'"crc32":"') + 9  # not inside a tensor's name, where quotes are escaped
    return at, b"%08x" % zlib.crc32(memoryview(data)[at + 8 :], zlib.crc32(data[:at]))


T = TypeVar("T")


class WriteCosts:
    """The time that large entries take to compute and to write, measured at the first few of a process.

    `pays` tells whether the disk saves time. Entries that take less than `SMALL` seconds to write are always written:
    they cost little, and later runs are spared the computation.
    """

    SMALL = 0.02
    MEASURED = 3

    def __init__(self) -> None:
        self._computed: list[float] = []
        self._written: list[float] = []

    @property
    def pays(self) -> bool:
        """Whether computing takes longer than writing; True until both are measured."""
        if min(len(self._computed) - 1, len(self._written)) < self.MEASURED:
            return True
        written = median(self._written)
        return written < self.SMALL or median(self._computed[1:]) > written  # the first one warms up

    @contextlib.contextmanager
    def computing(self, device: torch.device) -> Iterator[None]:
        """Measure a computation; waits for the device as long as measurements are missing."""
        with self._measure(self._computed, self.MEASURED + 1, device):
            yield

    @contextlib.contextmanager
    def writing(self, *, measured: bool = True) -> Iterator[None]:
        """Measure the writing of an entry."""
        with self._measure(self._written, self.MEASURED if measured else 0, torch.device("cpu")):
            yield

    @contextlib.contextmanager
    def _measure(self, times: list[float], most: int, device: torch.device) -> Iterator[None]:
        if len(times) >= most:
            yield
            return
        _synchronize(device)
        started = time.perf_counter()
        yield
        _synchronize(device)
        times.append(time.perf_counter() - started)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class ByteLRU(Generic[T]):
    """A least-recently-used cache in memory of at most `limit` bytes. Not thread-safe."""

    def __init__(self, limit: int = 256 * 2**20) -> None:
        self.limit = limit
        self._held = 0
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def fetch(self, key: Hashable, make: Callable[[], tuple[T, int]]) -> T:
        """The value of `key`; if it is missing, `make` returns it with its size in bytes."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key][0]
        value, size = make()
        self.put(key, value, size)
        return value

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def get(self, key: Hashable) -> T | None:
        """The value of `key`, None if it is missing."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Hashable, value: T, size: int) -> None:
        """Keep a value of `size` bytes, unless it is larger than the limit."""
        self._held -= self._values.pop(key, (None, 0))[1]
        self._values[key] = (value, size)
        self._held += size
        while self._held > self.limit:
            self._held -= self._values.popitem(last=False)[1][1]
