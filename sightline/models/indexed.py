"""Attention layers that choose tokens with an indexer (Qwen4), in packed rows and in rows being continued.

An indexer reads the mask: it pools blocks of the tokens that a token sees, and masks those whose blocks it does not
choose. So these layers get a mask of all pairs of tokens instead of a placeholder. In decoding, the indexer also needs
its own keys of all tokens and their positions.
"""

from collections import defaultdict
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from sightline.models.packing import Packed

#: The name of such layers in `layer_types`.
INDEXED = "indexed_attention"


def pair_mask(packed: Packed) -> Bool[Tensor, "token token"]:
    """The tokens that each token of a packed sequence sees; for causal prefixes."""
    tokens = len(packed.ids)
    seen = torch.zeros(tokens, tokens, dtype=torch.bool)
    for span in packed.spans:
        seen[span.shared, span.shared] = True
        for branch, places in zip(span.branches, span.rows(), strict=True):
            seen[places[branch:, None], places] = True
    return seen.tril_().to(packed.ids.device)


class IndexerCache:
    """Keys of all indexers and positions of rows being continued, with Transformers' cache interface.

    In the pass over the packed prefixes it gathers them by row; in a step, the new token of every row comes behind the
    longest row. A step ends with `advance`.
    """

    def __init__(self, packed: Packed, answers: Int[Tensor, "row"]) -> None:
        rows = [places for span in packed.spans for places in span.rows()]
        self._places = pad_sequence(rows, batch_first=True).to(answers.device)[answers]
        self._lengths = torch.tensor([len(places) for places in rows], device=answers.device)[answers]
        self._positions: Tensor | None = None
        self._keys: dict[int, Tensor] = {}
        #: Transformers keeps the positions in the first of these layers.
        self.layers: defaultdict[int, IndexerCache] = defaultdict(lambda: self)

    @property
    def indexer_position_ids(self) -> Int[Tensor, "axis row token"] | None:
        """The positions so far; set to those with the current tokens' behind them."""
        return self._positions

    @indexer_position_ids.setter
    def indexer_position_ids(self, positions: Int[Tensor, "axis row token"]) -> None:
        if self._positions is None:
            self._positions = positions[:, 0][:, self._places]
        else:
            moved = self._in_place(self._positions.movedim(0, 2), positions[:, :, -1:].movedim(0, 2))
            self._positions = moved.movedim(2, 0)

    def update_indexer(self, keys: Tensor, layer_idx: int) -> Tensor:
        """Keep the current tokens' keys of one layer; returns those of all tokens."""
        known = self._keys.get(layer_idx)
        if known is None:
            self._keys[layer_idx] = keys[0][self._places]
            return keys
        self._keys[layer_idx] = self._in_place(known, keys)
        return torch.cat([known, keys], 1)

    def update(self, keys: Tensor, values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """Attention keeps its keys and values itself."""
        return keys, values

    def mask(self) -> Bool[Tensor, "row 1 1 token"]:
        """The tokens that the new token of each row sees: those of its row, and itself at the end."""
        width = self._places.shape[1]
        seen = torch.arange(width, device=self._places.device) < self._lengths[:, None]
        return functional.pad(seen, (0, 1), value=True)[:, None, None]

    def advance(self) -> None:
        """Count the new tokens."""
        self._lengths = self._lengths + 1
        self._places = functional.pad(self._places, (0, 1))

    def select(self, rows: Int[Tensor, "kept"]) -> None:
        """Keep only these rows."""
        self._lengths = self._lengths[rows]
        width = int(self._lengths.max())
        self._places = self._places[rows, :width]
        self._keys = {layer: keys[rows, :width] for layer, keys in self._keys.items()}
        if self._positions is not None:
            self._positions = self._positions[:, rows, :width]

    def bytes(self) -> int:
        """The bytes of keys and positions."""
        positions = 0 if self._positions is None else self._positions.nbytes
        return positions + sum(keys.nbytes for keys in self._keys.values())

    def _in_place(self, known: Tensor, new: Tensor) -> Tensor:
        """The new token's entries (row, 1, dim) behind those of its row, in one more column."""
        wider = functional.pad(known, (0, 0, 0, 1))
        return wider.scatter(1, self._lengths[:, None, None].expand(-1, 1, wider.shape[2]), new.to(wider.dtype))
