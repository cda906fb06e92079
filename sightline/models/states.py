"""What layers other than attention know of the tokens so far, in each kind of pass: packed rows, prefill, one step.

`linear_layers` holds layers with a recurrent state, `indexed` attention layers with an indexer. Layouts of `attention`
have one of these objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.models.indexed import IndexerCache, pair_mask
from sightline.models.linear_layers import LayerState, Run, packed_outputs, prefilled_outputs
from sightline.models.packing import Packed


@runtime_checkable
class States(Protocol):
    """The states of one forward pass."""

    def recur(self, number: int, hidden: Float[Tensor, "row token dim"], run: Run) -> Float[Tensor, "row token dim"]:
        """The output of the layer with this number among those with a recurrent state."""
        ...

    def indexed(self) -> tuple[Bool[Tensor, "row 1 query token"], IndexerCache | None]:
        """The mask of the current tokens and all tokens, and the cache, of layers with an indexer."""
        ...


@dataclass
class PackedStates:
    """The states of packed rows: answers continue from their prefix."""

    packed: Packed

    def recur(self, number: int, hidden: Tensor, run: Run) -> Tensor:  # noqa: ARG002
        """Run a layer once per prefix, and once for its answers from the prefix's state."""
        return packed_outputs(self.packed.spans, hidden, run)

    def indexed(self) -> tuple[Tensor, None]:
        """The mask of all pairs of tokens; no cache."""
        return pair_mask(self.packed)[None, None], None


@dataclass
class RowStates:
    """The states of rows being continued, after `PrefillStates` filled them; each pass adds one token per row."""

    answers: Int[Tensor, "row"]  # the number of the answer of the packed sequence that each row continues
    layers: dict[int, LayerState] = field(default_factory=dict)
    indexers: IndexerCache | None = None

    @staticmethod
    def of(packed: Packed, copies: Sequence[int]) -> "RowStates":
        """Empty states for `copies[i]` rows of the i-th answer of all spans."""
        numbers = torch.arange(len(copies)).repeat_interleave(torch.tensor(copies, dtype=torch.long))
        return RowStates(numbers.to(packed.ids.device))

    def recur(self, number: int, hidden: Tensor, run: Run) -> Tensor:
        """Run a layer on one new token per row, from the row's state."""
        return run(hidden, self.layers[number])

    def indexed(self) -> tuple[Tensor, IndexerCache | None]:
        """The mask of the new tokens, and the keys of the indexers."""
        if self.indexers is None:
            raise ValueError("the first step was not preceded by a prefill")
        return self.indexers.mask(), self.indexers

    @property
    def is_empty(self) -> bool:
        """Whether the model has attention layers alone."""
        return not self.layers and self.indexers is None

    def advance(self) -> None:
        """Count the new tokens after a pass."""
        if self.indexers is not None:
            self.indexers.advance()

    def select(self, rows: Int[Tensor, "kept"]) -> None:
        """Keep only these rows."""
        self.answers = self.answers[rows]
        self.layers = {number: state.select(rows) for number, state in self.layers.items()}
        if self.indexers is not None:
            self.indexers.select(rows)

    def bytes(self) -> int:
        """The bytes of all states."""
        parts = [
            tensor for state in self.layers.values() for tensor in (*state.conv.values(), *state.recurrent.values())
        ]
        return sum(part.nbytes for part in parts) + (0 if self.indexers is None else self.indexers.bytes())


@dataclass
class PrefillStates:
    """The states of the pass over packed rows that keeps the one after each row's last token in `rows`."""

    packed: Packed
    rows: RowStates

    def recur(self, number: int, hidden: Tensor, run: Run) -> Tensor:
        """As `PackedStates`, and keep the states."""
        output, after = prefilled_outputs(self.packed.spans, hidden, run)
        self.rows.layers[number] = after.select(self.rows.answers)
        self.rows.layers[number].in_place = True
        return output

    def indexed(self) -> tuple[Tensor, IndexerCache]:
        """The mask of all pairs of tokens, and the cache that keeps the keys of the indexers."""
        self.rows.indexers = IndexerCache(self.packed, self.rows.answers)
        return pair_mask(self.packed)[None, None], self.rows.indexers
