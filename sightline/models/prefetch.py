"""Work that runs ahead of its use in a few threads, each with its own copy of a processor.

A result is the same as without threads. A failed work has no result: whoever needs it does it again, and raises its
error where it belongs.
"""

import copy
import os
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: Threads at most; fewer on a machine with fewer cores.
THREADS = 4
#: Seconds of a work from which threads save time.
LEAST_SECONDS = 0.003
#: Number of recent works whose time is known.
RECENT = 8


class Prefetch(Generic[T]):
    """Works by key that run in threads while `running` is open.

    Threads are used once the recent works took `LEAST_SECONDS` (`record`): for smaller ones they cost more than they
    save. Only one thread may call the methods.
    """

    def __init__(self) -> None:
        self._futures: dict[Hashable, Future[T]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._copies: list[Any] = []
        self._source: Any = None
        self._seconds: list[float] = []

    @property
    def is_open(self) -> bool:
        """Whether submitted works run."""
        return self._pool is not None and bool(self._seconds) and median(self._seconds) >= LEAST_SECONDS

    def record(self, seconds: float) -> None:
        """Record how long a work took without threads."""
        self._seconds = [*self._seconds, seconds][-RECENT:]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context in which works run; works that nobody has taken are dropped at its end."""
        count = min(THREADS, _cores() - 1)
        if self._pool is not None or count < 1:
            yield
            return
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="sightline-prefetch")
        try:
            yield
        finally:
            self._pool.shutdown(cancel_futures=True)  # waits for works that run: each has a copy
            self._pool = None
            self._futures.clear()

    def submit(self, key: Hashable, processor: Any, work: Callable[[Any], T]) -> None:
        """Start `work` with a copy of `processor`, unless it was started before."""
        if self._pool is None or key in self._futures:
            return
        if self._source is not processor:
            self._copies = [copy.deepcopy(processor) for _ in range(min(THREADS, _cores() - 1))]
            self._source = processor
        copies = self._copies

        def run() -> T:
            own = copies.pop()  # there is a copy for every thread
            try:
                return work(own)
            finally:
                copies.append(own)

        self._futures[key] = self._pool.submit(run)

    def take(self, key: Hashable) -> T | None:
        """The result of a started work, None if there is none or it failed; waits for it."""
        future = self._futures.pop(key, None)
        if future is None:
            return None
        try:
            return future.result()
        except Exception:  # noqa: BLE001 - of any library; done again, it is raised where it belongs
            return None


def _cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
