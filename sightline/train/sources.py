"""Sources of a step's items: the only difference between offline, online and mixed training.

A source yields the items of one optimizer step at a time and can save its position. `OfflineSource` has given items and
needs no model; `stream_source` builds pairs with the policy; `loop` consumes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from sightline.errors import InputError

Item = TypeVar("Item")


class Source(Protocol[Item]):
    """An iterator over the items of each step: pairs with absolute image paths, or other items of the task.

    `state` after n draws, passed to `restore` of a source with the same arguments, makes that source continue with draw
    n + 1, whatever the policy was meanwhile. The state is plain JSON and may hold rows that wait to be drawn.
    """

    @property
    def steps(self) -> int:
        """The number of draws from start to end."""
        ...

    @property
    def repeats(self) -> bool:
        """Whether an item may come again, so that results computed from it are worth caching."""
        ...

    def __iter__(self) -> Iterator[list[Item]]: ...

    def __next__(self) -> list[Item]: ...

    def upcoming(self) -> Sequence[Item]:
        """The items of the next draw if they are known already; may be empty."""
        ...

    def numbers(self) -> Mapping[str, float]:
        """Statistics of the last draw for the log: counts and shares by name; may be empty."""
        ...

    def dropped(self) -> Mapping[str, int]:
        """Counts of everything dropped so far, by reason; may be empty."""
        ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...

    def close(self) -> None:
        """Release resources such as servers, at the end of the run or before it.

        Raises:
            InputError: one of them does not answer.
        """
        ...


class Paused(InputError):
    """A source cannot continue now; its state is that before the draw: nothing is lost, and it may be drawn again."""


@dataclass(frozen=True)
class Order:
    """The order of `count` items over steps: shuffled each epoch, a pure function of (seed, epoch).

    An epoch's last step takes the rest and may be smaller; no step spans two epochs. Give either `epochs` or
    `max_steps`; the latter uses as many epochs as needed.
    """

    count: int
    per_step: int
    seed: int
    epochs: int | None = None
    max_steps: int | None = None

    def __post_init__(self) -> None:
        if not self.count or self.per_step < 1 or (self.epochs is None) == (self.max_steps is None):
            raise ValueError("needs items, a positive number of items a step, and either epochs or max_steps")

    @property
    def steps_per_epoch(self) -> int:
        """The number of draws that cover all items once."""
        return -(-self.count // self.per_step)

    @property
    def steps(self) -> int:
        """The number of draws from start to end."""
        return self.max_steps if self.max_steps is not None else (self.epochs or 0) * self.steps_per_epoch

    def draw(self, number: int) -> tuple[int, list[int]]:
        """The epoch of the draw (both count from 0), and the indices of its items."""
        epoch, step = divmod(number, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        start = step * self.per_step
        return epoch, [int(place) for place in order[start : start + self.per_step]]


class OfflineSource(Generic[Item]):
    """Given items, in the order of `Order`."""

    def __init__(
        self,
        pairs: Sequence[Item],
        *,
        pairs_per_step: int,
        seed: int,
        epochs: int | None = None,
        max_steps: int | None = None,
    ) -> None:
        self._pairs = pairs
        self._order = Order(len(pairs), pairs_per_step, seed, epochs, max_steps)
        self._drawn = 0

    @property
    def steps(self) -> int:
        return self._order.steps

    @property
    def repeats(self) -> bool:
        return self._order.steps > self._order.steps_per_epoch

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[Item]:
        if self._drawn >= self.steps:
            raise StopIteration
        _, places = self._order.draw(self._drawn)
        self._drawn += 1
        return [self._pairs[place] for place in places]

    def upcoming(self) -> Sequence[Item]:
        if self._drawn >= self.steps:
            return ()
        return [self._pairs[place] for place in self._order.draw(self._drawn)[1]]

    def numbers(self) -> Mapping[str, float]:
        return {}

    def dropped(self) -> Mapping[str, int]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"drawn": self._drawn, "pairs": len(self._pairs)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue after the draws that `state` counts; ValueError if it is of another number of pairs."""
        if state["pairs"] != len(self._pairs):
            raise ValueError(f"the state was taken over {state['pairs']} pairs, this source has {len(self._pairs)}")
        self._drawn = state["drawn"]

    def close(self) -> None:
        """Nothing to release."""
