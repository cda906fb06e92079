"""How a stage tells how far it is: a function of (done, total), which the command line turns into a bar."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Progress = Callable[[int, int], None]
T = TypeVar("T")


def counted(items: Iterable[T], progress: Progress | None, total: int, done: int = 0) -> Iterator[T]:
    """Pass items through and tell `progress` after each; `done` is how many were there before."""
    if progress is not None:
        progress(done, total)
    for number, item in enumerate(items, done + 1):
        yield item
        if progress is not None:
            progress(number, total)
