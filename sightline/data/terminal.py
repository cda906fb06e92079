"""All terminal output: lines, Rich screens and progress, with invisible characters written as escape codes.

Names, paths, answers and errors come from untrusted files and models. A control character in them would move the
cursor, set the window title or hide text, a bidirectional one would reverse the line, and Rich would interpret `[red]`
as markup. Every command prints through `say` or a `Screen`, which a test enforces. Progress goes to stderr: bars on a
terminal, otherwise a line a minute.
"""

import os
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.segment import Segment
from rich.table import Column
from rich.text import Text

from sightline.errors import InputError

#: Unicode categories that move the cursor, are invisible, or are unassigned.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str, *, kept: str = "\n\t") -> str:
    """The text with every invisible character, except those in `kept`, replaced by its escape code."""
    if text.isprintable():  # no hidden characters, and no white space but the plain space
        return text
    return "".join(character if character in kept else _shown(character) for character in text)


def one_line(text: str) -> str:
    """The same as `visible`, on one line: runs of white space become single spaces."""
    return visible(" ".join(text.split()), kept="")


def say(text: str, *, err: bool = False, red: bool = False, end: str = "\n") -> None:
    """Write a line to stdout or stderr."""
    stream = sys.stderr if err else sys.stdout
    shown = visible(text)
    is_colored = red and stream.isatty() and not os.environ.get("NO_COLOR")
    stream.write((f"\x1b[31m{shown}\x1b[0m" if is_colored else shown) + end)
    stream.flush()


class Screen(Console):
    """A Rich console for untrusted text: markup is off, and no hidden character reaches the terminal.

    Set styles by `style=` or `Text(..., style=)`, never in the text.
    """

    def __init__(self, **options: Any) -> None:
        plain = {"markup": False, "emoji": False, "highlight": False, "force_jupyter": False}  # a notebook gets text
        super().__init__(**{**plain, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """A text with its hidden characters escaped, so that its width is measured correctly."""
        return super().render_str(visible(text), **{**options, "markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable; escapes text that did not pass through `render_str`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def escape_code(character: str) -> str:
    r"""The JSON escape of a character, such as `\u001b`; a surrogate pair beyond the basic plane."""
    units = character.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{unit.hex()}" for unit in (units[:2], units[2:]) if unit)


def _shown(character: str) -> str:
    return escape_code(character) if unicodedata.category(character) in _HIDDEN else character


Progress = Callable[[int, int], None]
T = TypeVar("T")

EVERY = 60.0  # seconds between progress lines


@contextmanager
def open_bars(*, shown: bool = True, clock: Callable[[], float] = time.monotonic) -> Iterator[Bars]:
    """Progress bars with label, count, time left and a note (`add_task(..., note="")`).

    With `shown` False nothing is displayed. Bars are erased on InputError, so that only the error's sentence remains.
    `clock` gives seconds.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),  # the only column that shrinks on a narrow terminal
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
            bars.console.quiet = not bars.console.is_interactive  # otherwise Rich would print an empty line
            raise


@contextmanager
def one_bar(label: str, *, shown: bool = True, clock: Callable[[], float] = time.monotonic) -> Iterator[Progress]:
    """Open one bar and yield the function that updates it; as `open_bars`."""
    with open_bars(shown=shown, clock=clock) as bars:
        task = bars.add_task(label, total=None, note="")
        yield lambda done, total: bars.update(task, completed=done, total=total)


class Log:
    """Progress lines for a file or a pipe: `look` writes them if the last are `EVERY` seconds old."""

    def __init__(self, bars: Bars, clock: Callable[[], float]) -> None:
        self._bars, self._clock = bars, clock
        self._began = self._last = clock()
        self._first: dict[TaskID, tuple[float, float]] = {}  # time and progress when each task was first seen

    def look(self) -> None:
        """If due, write the progress of each unfinished task, or the time worked if there is none."""
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
    """Check for due progress lines once a second in a thread, since a step may take longer than a minute."""
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


def with_progress(items: Iterable[T], progress: Progress | None, total: int, done: int = 0) -> Iterator[T]:
    """Yield the items and report each to `progress`; `done` items were completed before."""
    if progress is not None:
        progress(done, total)
    for number, item in enumerate(items, done + 1):
        yield item
        if progress is not None:
            progress(number, total)
