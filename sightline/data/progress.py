"""How long work shows how far it is: bars on stderr, the same in every room.

A stage of many parts calls `open_bars`; one that only counts takes a `Progress`, a function of (done, total), such as
`one_bar` gives.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from sightline.errors import InputError

Progress = Callable[[int, int], None]
T = TypeVar("T")


@contextmanager
def open_bars(*, shown: bool = True) -> Iterator[Bars]:
    """Bars with what they count, how far they are, the time left, and a note (`add_task(..., note="")`).

    With `shown` False nothing is ever seen of them. They disappear when bad input ends the work, so that the error's
    one sentence stands alone.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),  # the one column that gives way where the line is short
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=Console(stderr=True, quiet=not shown), disable=not shown) as bars:
        try:
            yield bars
        except InputError:
            bars.live.transient = True
            bars.console.quiet = not bars.console.is_interactive  # where they cannot, rich would print an empty line
            raise


@contextmanager
def one_bar(label: str) -> Iterator[Progress]:
    """One bar, as the function that moves it."""
    with open_bars() as bars:
        task = bars.add_task(label, total=None, note="")
        yield lambda done, total: bars.update(task, completed=done, total=total)


def counted(items: Iterable[T], progress: Progress | None, total: int, done: int = 0) -> Iterator[T]:
    """Pass items through and tell `progress` after each; `done` is how many were there before."""
    if progress is not None:
        progress(done, total)
    for number, item in enumerate(items, done + 1):
        yield item
        if progress is not None:
            progress(number, total)
