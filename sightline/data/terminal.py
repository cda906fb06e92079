"""The one place that writes on a terminal; what does not show as itself is written as its code.

Names, paths, answers and errors come from files and models of others. A control character in them would move the
cursor, set the window's title or hide text, a bidirectional one would turn the line around, and `[red]` would be eaten
as Rich's markup. Everything that a command prints goes through `say` or a `Screen`; a test looks for other ways.
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

#: Categories of characters that move the cursor, are not seen, or are no characters.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str, *, kept: str = "\n\t") -> str:
    """The text with every character that does not show as itself written as its code, but for those `kept`."""
    if text.isprintable():  # all but spaces other than the plain one, and what is hidden
        return text
    return "".join(character if character in kept else _shown(character) for character in text)


def one_line(text: str) -> str:
    """The same on one line: white space becomes single blanks."""
    return visible(" ".join(text.split()), kept="")


def say(text: str, *, err: bool = False, red: bool = False, end: str = "\n") -> None:
    """Write a line on stdout, or on stderr."""
    stream = sys.stderr if err else sys.stdout
    shown = visible(text)
    is_colored = red and stream.isatty() and not os.environ.get("NO_COLOR")
    stream.write((f"\x1b[31m{shown}\x1b[0m" if is_colored else shown) + end)
    stream.flush()


class Screen(Console):
    """A Rich console for foreign text: texts have no markup, and no hidden character reaches the terminal.

    Styles are given beside a text (`style=`, `Text(..., style=)`), never in it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as it will stand there, measured after its hidden characters are written as codes."""
        return super().render_str(visible(text), **{**options, "markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The pieces of anything that can be printed; what came another way than by `render_str` is caught here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def escape_code(character: str) -> str:
    r"""A character as its code in the form of JSON, such as `\u001b`: two of four digits where four are too few."""
    units = character.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{unit.hex()}" for unit in (units[:2], units[2:]) if unit)


def _shown(character: str) -> str:
    return escape_code(character) if unicodedata.category(character) in _HIDDEN else character


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


def with_progress(items: Iterable[T], progress: Progress | None, total: int, done: int = 0) -> Iterator[T]:
    """Pass items through and tell `progress` after each; `done` is how many were there before."""
    if progress is not None:
        progress(done, total)
    for number, item in enumerate(items, done + 1):
        yield item
        if progress is not None:
            progress(number, total)
