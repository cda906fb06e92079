"""How long work shows how far it is, on stderr, the same in every room: bars on a terminal, elsewhere a line a minute.

A stage of many parts calls `open_bars`; one that only counts takes a `Progress`, a function of (done, total), such as
`one_bar` gives. A log needs no bars, but a line now and then; in its first minute nothing is written into it.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from sightline.data.terminal import Screen, one_line
from sightline.errors import InputError

Progress = Callable[[int, int], None]
T = TypeVar("T")

EVERY = 60.0  # seconds between the lines of a log


@contextmanager
def open_bars(*, shown: bool = True, clock: Callable[[], float] = time.monotonic) -> Iterator[Bars]:
    """Bars with what they count, how far they are, the time left, and a note (`add_task(..., note="")`).

    With `shown` False nothing is ever seen of them. They disappear when bad input ends the work, so that the error's
    one sentence stands alone. `clock` gives seconds.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),  # the one column that gives way where the line is short
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", markup=False),
    )
    screen = Screen(stderr=True, quiet=not shown)
    with Bars(*columns, console=screen, disable=not shown) as bars, _logged(bars, clock, shown=shown):
        try:
            yield bars
        except InputError:
            bars.live.transient = True
            bars.console.quiet = not bars.console.is_interactive  # where they cannot, rich would print an empty line
            raise


@contextmanager
def one_bar(label: str, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Progress]:
    """One bar, as the function that moves it."""
    with open_bars(clock=clock) as bars:
        task = bars.add_task(label, total=None, note="")
        yield lambda done, total: bars.update(task, completed=done, total=total)


class Log:
    """The lines of bars for a file or a pipe: `look` writes one where the last is `EVERY` seconds old."""

    def __init__(self, bars: Bars, clock: Callable[[], float]) -> None:
        self._bars, self._clock = bars, clock
        self._began = self._last = clock()
        self._first: dict[TaskID, tuple[float, float]] = {}  # when each was first seen, and how far it was then

    def look(self) -> None:
        """Write how far the unfinished tasks are, or that there is none yet, if it is time."""
        now = self._clock()
        tasks = list(self._bars.tasks)
        for task in tasks:
            self._first.setdefault(task.id, (now, task.completed))
        if now - self._last < EVERY:
            return
        self._last = now
        lines = [self._line(task, now) for task in tasks if task.total is None or task.completed < task.total]
        for line in lines or [f"at work for {_span(now - self._began)}"]:
            self._bars.console.print(line, soft_wrap=True)

    def _line(self, task: Task, now: float) -> str:
        """`training: 120 of 500, loss 0.693, 1.9 a second, 3 min left`."""
        since, start = self._first[task.id]
        rate = (task.completed - start) / (now - since) if now > since else 0.0
        of = "" if task.total is None else f" of {task.total:g}"
        parts = [f"{task.description}: {task.completed:g}{of}", task.fields.get("note", "")]
        if rate > 0:
            parts.append(f"{rate:.2g} a second" if rate < 100 else f"{rate:.0f} a second")
        if rate > 0 and task.total is not None:
            parts.append(f"{_span((task.total - task.completed) / rate)} left")
        return one_line(", ".join(part for part in parts if part))


@contextmanager
def _logged(bars: Bars, clock: Callable[[], float], *, shown: bool) -> Iterator[None]:
    """Beside the work, look once a second whether a line is due; a step may take longer than a minute."""
    if not shown or bars.console.is_terminal:
        yield
        return
    log, ended = Log(bars, clock), threading.Event()

    def watch() -> None:
        while not ended.wait(1.0):
            log.look()

    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _span(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def counted(items: Iterable[T], progress: Progress | None, total: int, done: int = 0) -> Iterator[T]:
    """Pass items through and tell `progress` after each; `done` is how many were there before."""
    if progress is not None:
        progress(done, total)
    for number, item in enumerate(items, done + 1):
        yield item
        if progress is not None:
            progress(number, total)
