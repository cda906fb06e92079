"""Processes that a launcher started for one command: shares of the work, results in order, errors that end all.

`accelerate launch` or `torchrun` start them; this module reads the environment and starts nothing. With one process,
every method does what code without processes would do, and torch is not imported. `train.processes` adds gradients and
sharded weights.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from sightline.errors import InputError

T = TypeVar("T")
#: The longest wait for the other processes. Shares of long generations may end hours apart, and a process that dies is
#: noticed by the launcher.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """Process number `rank` of `count`; the first one writes all files and shows the progress bars."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's share of items that all processes hold: every `count`-th, so shares differ by at most one."""
        return list(items[self.rank :: self.count])

    def join(self, share: Sequence[T]) -> list[T]:
        """All results in the order of the items, from the results of each process's share; collective."""
        parts = self.gather(list(share))
        joined: list[T] = []
        for place in range(max(len(part) for part in parts)):
            joined += [part[place] for part in parts if place < len(part)]
        return joined

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank; collective."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def on_first(self, work: Callable[[], T]) -> T:
        """The result of `work` in the first process, for all; collective. An `InputError` ends all processes."""
        return self.on_all(lambda: work() if self.is_first else None, of_first=True)  # type: ignore[return-value]

    def on_all(self, work: Callable[[], T], *, of_first: bool = False) -> T:
        """`work()` in each process; an `InputError` in one ends all.

        The first process raises it, so that it is shown once; the others exit with the code of bad input. With
        `of_first` all receive the first process's result.
        """
        if self.count == 1:
            return work()
        result: T | None = None
        error: InputError | None = None
        try:
            result = work()
        except InputError as caught:
            error = caught
        errors = [each for each in self.gather(error) if each is not None]
        if errors:
            if self.is_first:
                raise errors[0]
            raise SystemExit(2)
        if not of_first:
            return result  # type: ignore[return-value]
        shared = self.gather(result)[0]
        return result if self.is_first else shared  # type: ignore[return-value]  # its own object, not a copy

    def side_by_side(self, folder: Path, work: Callable[[Callable[[], None]], None]) -> None:
        """`work(check)` in each process, of which each does its share for as long as it takes; collective.

        As `on_all`; besides, an error in one process stops the others at their next call of `check`, by a mark in
        `folder`, which all processes see.
        """
        if self.count == 1:
            work(lambda: None)
            return
        marks = f"{_MARK}*"

        def check() -> None:
            if any(folder.glob(marks)):
                raise _OtherFailed

        def marked() -> None:
            try:
                work(check)
            except InputError:
                (folder / f"{_MARK}{self.rank}").touch()
                raise
            except _OtherFailed:
                return  # the other one's error is raised

        def remove_marks() -> None:
            for mark in folder.glob(marks):  # of a run that was killed
                mark.unlink(missing_ok=True)

        self.on_first(remove_marks)
        try:
            self.on_all(marked)
        finally:
            (folder / f"{_MARK}{self.rank}").unlink(missing_ok=True)


class _OtherFailed(Exception):
    """Another process has an error."""


_MARK = ".failed-"


def launched_count() -> int:
    """How many processes the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1") or 1)


def is_first_launched() -> bool:
    """Whether this is the process that prints, as far as the environment tells before the processes are joined."""
    return launched_count() == 1 or int(os.environ.get("RANK", "0") or 0) == 0


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """The processes that a launcher started, to train on "cpu" or "cuda"; one process without a launcher.

    On a GPU each process uses the device of its local rank, which is "cuda" to it from then on.
    """
    if launched_count() == 1:
        yield Processes()
        return
    import torch
    from torch import distributed

    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield current_processes()
    finally:
        distributed.destroy_process_group()


@contextmanager
def join_workers() -> Iterator[Processes]:
    """The processes that a launcher started, for work that they do apart; one process without a launcher.

    They exchange results and no tensors. Each uses the GPU of its local rank, if there are GPUs. Processes that are
    joined already stay so.
    """
    if launched_count() == 1:
        yield Processes()
        return
    import torch
    from torch import distributed

    if distributed.is_initialized():
        yield current_processes()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield current_processes()
    finally:
        distributed.destroy_process_group()


def current_processes() -> Processes:
    """The process group that is initialized now, or a single process."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return Processes()
    return Processes(distributed.get_rank(), distributed.get_world_size())
