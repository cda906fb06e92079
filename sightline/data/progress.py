"""How a stage tells how far it is: a function of (done, total), which the command line turns into a bar.

No bar is made here; those who show bars use `stand_aside` when bad input ends the work.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich import progress as rich_progress

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


def stand_aside(bars: rich_progress.Progress) -> None:
    """Have bars disappear when they stop, so that the error's one sentence stands alone."""
    bars.live.transient = True
    bars.console.quiet = not bars.console.is_interactive  # where they cannot, rich would print an empty line
