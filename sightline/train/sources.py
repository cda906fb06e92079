"""Where the pairs of a step come from: the one difference between offline, online and mixed training.

A source yields the pairs of one optimizer step at a time and can say where it stands. `OfflineSource` takes pairs that
exist already and so knows no model; the loop that consumes sources is `loop`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

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

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


class OfflineSource(Generic[Item]):
    """Given pairs in a fresh order each epoch, a pure function of (seed, epoch).

    An epoch's last step takes what is left and may be smaller; no step spans two epochs. Give either `epochs` or
    `max_steps`; the latter goes through as many epochs as it needs.
    """

    def __init__(
        self,
        pairs: Sequence[Item],
        *,
        pairs_per_step: int,
        seed: int,
        epochs: int | None = None,
        max_steps: int | None = None,
    ) -> None:
        if not pairs or pairs_per_step < 1 or (epochs is None) == (max_steps is None):
            raise ValueError("needs pairs, a positive number of pairs a step, and either epochs or max_steps")
        self._pairs = pairs
        self._pairs_per_step = pairs_per_step
        self._seed = seed
        self._steps_per_epoch = -(-len(pairs) // pairs_per_step)
        self._steps = max_steps if max_steps is not None else (epochs or 0) * self._steps_per_epoch
        self._drawn = 0

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def repeats(self) -> bool:
        return self._steps > self._steps_per_epoch

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[Item]:
        if self._drawn >= self._steps:
            raise StopIteration
        epoch, step = divmod(self._drawn, self._steps_per_epoch)
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._pairs))
        start = step * self._pairs_per_step
        self._drawn += 1
        return [self._pairs[index] for index in order[start : start + self._pairs_per_step]]

    def numbers(self) -> Mapping[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"drawn": self._drawn, "pairs": len(self._pairs)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after the draws that `state` counts; ValueError if it was taken over another number of pairs."""
        if state["pairs"] != len(self._pairs):
            raise ValueError(f"the state was taken over {state['pairs']} pairs, this source has {len(self._pairs)}")
        self._drawn = state["drawn"]
