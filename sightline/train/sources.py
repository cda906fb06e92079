"""Where the pairs of a step come from: the one difference between offline, online and mixed training.

A source yields the items of one optimizer step at a time and can say where it stands. `OfflineSource` takes items that
exist already and so knows no model; `mixing` has the source whose pairs the policy makes, `loop` consumes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from sightline.errors import InputError

Item = TypeVar("Item")


class Source(Protocol[Item]):
    """An iterator over the items of each step: pairs with absolute image paths, or whatever the task learns from.

    `state` after n draws, given to `restore` of a source made with the same arguments, makes that source go on with
    draw n + 1, whatever the policy was meanwhile. The state is plain JSON and may hold rows that wait to be drawn.
    """

    @property
    def steps(self) -> int:
        """How many draws there are from the start to the end."""
        ...

    @property
    def repeats(self) -> bool:
        """Whether an item may come again, so that what is computed of it is worth keeping."""
        ...

    def __iter__(self) -> Iterator[list[Item]]: ...

    def __next__(self) -> list[Item]: ...

    def numbers(self) -> Mapping[str, float]:
        """What the last draw took, for the log: counts and shares by name; empty where there is nothing to tell."""
        ...

    def dropped(self) -> Mapping[str, int]:
        """What all draws so far have left out, by reason; empty where nothing was."""
        ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...

    def close(self) -> None:
        """Nothing more is drawn, at the end or before it: let go of what others hold for this source, such as servers.

        Raises:
            InputError: one of them does not answer.
        """
        ...


class Paused(InputError):
    """A source cannot go on now and stands as it did before the draw: nothing is lost, and it may be asked again."""


@dataclass(frozen=True)
class Order:
    """Which of `count` items each step takes: a fresh order each epoch, a pure function of (seed, epoch).

    An epoch's last step takes what is left and may be smaller; no step spans two epochs. Give either `epochs` or
    `max_steps`; the latter goes through as many epochs as it needs.
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
        """How many draws go through all items once."""
        return -(-self.count // self.per_step)

    @property
    def steps(self) -> int:
        """How many draws there are from the start to the end."""
        return self.max_steps if self.max_steps is not None else (self.epochs or 0) * self.steps_per_epoch

    def draw(self, number: int) -> tuple[int, list[int]]:
        """The epoch of the draw, counted from 0 as the draw is, and the places of its items."""
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

    def numbers(self) -> Mapping[str, float]:
        return {}

    def dropped(self) -> Mapping[str, int]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"drawn": self._drawn, "pairs": len(self._pairs)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after the draws that `state` counts; ValueError if it was taken over another number of pairs."""
        if state["pairs"] != len(self._pairs):
            raise ValueError(f"the state was taken over {state['pairs']} pairs, this source has {len(self._pairs)}")
        self._drawn = state["drawn"]

    def close(self) -> None:
        """Nothing to let go of."""
