"""Work in threads that nobody has to wait for: an interrupt ends the run at once, whatever a server is doing."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T, Event], R], items: Mapping[K, T], threads: int) -> Iterator[tuple[K, R]]:
    """`work(item, stop)` of every item, as they are finished; what one raises is raised here.

    After that, and when the caller leaves early, `stop` is set and no further item is begun. The threads are
    daemons and not an executor's: Python waits for those when it ends, and a call may take minutes.
    """
    waiting, finished, stop = SimpleQueue[tuple[K, T]](), SimpleQueue[tuple[K, Future[R]]](), Event()
    for item in items.items():
        waiting.put(item)

    def run() -> None:
        while not stop.is_set():
            try:
                key, item = waiting.get_nowait()
            except Empty:
                return
            result = Future[R]()
            try:
                result.set_result(work(item, stop))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                stop.set()  # here, lest another item is begun before the caller hears of it
                result.set_exception(error)
            finished.put((key, result))

    for _ in range(min(threads, len(items))):
        Thread(target=run, daemon=True).start()
    try:
        for _ in items:
            key, result = finished.get()
            yield key, result.result()
    finally:
        stop.set()
