"""Several processes that train one model: who does what share, how they add up, and how they stop together.

They are started by `accelerate launch` or `torchrun`, which this reads from the environment; nothing is started here.
One process is the plain case: every method is then what a loop without processes would do. Sharded weights are
`sharding`'s.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from sightline.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `count`; the first one writes all files and shows the bars."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether files are this process's to write."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of what all hold: every `count`-th item, so that all have as many, up to one."""
        return list(items[self.rank :: self.count])

    def join(self, share: Sequence[T]) -> list[T]:
        """All items in their order, from what each process made of its share; called by all."""
        parts = self.tell(list(share))
        made: list[T] = []
        for place in range(max(len(part) for part in parts)):
            made += [part[place] for part in parts if place < len(part)]
        return made

    def tell(self, value: T) -> list[T]:
        """What each process says, by rank; called by all."""
        if self.count == 1:
            return [value]
        told: list[Any] = [None] * self.count
        distributed.all_gather_object(told, value)
        return told

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, for all; called by all. An `InputError` of it ends all of them."""
        return self.together(lambda: work() if self.is_first else None, of_first=True)  # type: ignore[return-value]

    def together(self, work: Callable[[], T], *, of_first: bool = False) -> T:
        """`work()` in each process; where it raises `InputError` in one, all end.

        The first process raises, for whoever shows errors to people; the others exit with the code of bad input.
        With `of_first` all get what the first process made.
        """
        if self.count == 1:
            return work()
        made: T | None = None
        error: InputError | None = None
        try:
            made = work()
        except InputError as caught:
            error = caught
        errors = [each for each in self.tell(error) if each is not None]
        if errors:
            if self.is_first:
                raise errors[0]
            raise SystemExit(2)
        return self.tell(made)[0] if of_first else made  # type: ignore[return-value]

    def add_up(self, weights: Sequence[Tensor]) -> None:
        """Sum the gradients of `weights` over all processes, in place; a weight that none has a gradient of keeps none.

        One message a number format: many small ones would each wait for the slowest process.
        """
        if self.count == 1:
            return
        there = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32, device=_place(weights))
        distributed.all_reduce(there)
        used = [weight for weight, count in zip(weights, there.tolist(), strict=True) if count]
        for kind in sorted({weight.dtype for weight in used}, key=str):
            of_kind = [weight for weight in used if weight.dtype == kind]
            flat = torch.cat([_gradient(weight).flatten() for weight in of_kind])
            distributed.all_reduce(flat)
            for weight, part in zip(of_kind, flat.split([weight.numel() for weight in of_kind]), strict=True):
                weight.grad = part.view_as(weight).clone()


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """The processes that a launcher started, on "cpu" or "cuda"; one where none did, or where they are joined already.

    On a GPU each process takes the one of its local rank, which is "cuda" to it from then on.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def present_processes() -> Processes:
    """The processes that are joined now, for those whom nobody tells."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Processes()
    return Processes(distributed.get_rank(), distributed.get_world_size())


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _place(weights: Sequence[Tensor]) -> torch.device:
    return weights[0].device if weights else torch.device("cpu")
