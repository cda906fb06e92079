"""One progress bar on stderr for commands whose stage reports `(done, total)`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sightline.data.progress import stand_aside
from sightline.errors import InputError


@contextmanager
def one_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar, and the function that moves it."""
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=None)
        try:
            yield lambda done, total: progress.update(task, completed=done, total=total)
        except InputError:
            stand_aside(progress)
            raise
