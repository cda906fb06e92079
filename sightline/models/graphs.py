"""Decoding steps of fixed shapes in buckets, replayed as a CUDA graph.

A step of a 7B model launches some 1,300 kernels, which takes the host longer than the GPU takes to run them. A graph
launches them at once, but needs the same shapes and addresses in every step: rows and buffer widths are rounded up to
buckets, and buffers are allocated once a batch. On other devices the plain step is faster, and it runs there. Capturing
costs a few steps, so short batches run plain as well.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from sightline.models.attention import AttentionSettings, RunningRows
from sightline.models.device import to_device
from sightline.models.vlm import VLM

log = logging.getLogger(__name__)

#: Hidden states after tokens at positions.
Forward = Callable[[Tensor, Tensor], Tensor]
#: New tokens from which capturing pays.
LEAST_STEPS = 16
#: The widths of buffers are multiples of this number.
WIDTH = 128
#: Runs before the capture, in which libraries allocate what they need.
WARM_UPS = 2


def bucket_of(rows: int) -> int:
    """The bucket of a number of rows: the next power of two up to 16, then the next multiple of 16."""
    return 1 << (rows - 1).bit_length() if rows <= 16 else -(-rows // 16) * 16


def uses_graphs(vlm: VLM, running: RunningRows, new_tokens: int) -> bool:
    """Whether a batch decodes by graphs: on a GPU without autocast, with enough tokens to come, and rows of keys alone.

    Shared prefixes and states of recurrent layers are not in the fixed buffers.
    """
    return (
        vlm.device.type == "cuda"
        and not torch.is_autocast_enabled("cuda")
        and running.shared is None
        and running.states.is_empty
        and new_tokens >= LEAST_STEPS
    )


class FixedRows(RunningRows):
    """Running rows whose tensors keep shape and address from step to step; further rows of the bucket are empty."""

    @staticmethod
    def from_rows(rows: RunningRows, new_tokens: int) -> "FixedRows":
        """Copy keys and values into buffers for `new_tokens` more tokens of each row."""
        count = len(rows.host_lengths)
        more = bucket_of(count) - count
        width = -(-(rows.width + new_tokens + 1) // WIDTH) * WIDTH
        fixed = FixedRows(
            functional.pad(rows.lengths, (0, more)),
            list(rows.host_lengths),
            functional.pad(rows.orders, (0, width - rows.orders.shape[1], 0, more)),
            functional.pad(rows.places, (0, 0, 0, more)),
            functional.pad(rows.last, (0, more)),
            rows.states,
        )
        for layer, pair in rows.buffers.items():
            keys, values = (functional.pad(one, (0, 0, 0, width - one.shape[2], 0, 0, 0, more)) for one in pair)
            fixed.buffers[layer] = keys, values
        return fixed

    @property
    def bucket(self) -> int:
        """The number of rows of a step, empty ones included."""
        return len(self.lengths)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, settings: AttentionSettings) -> Tensor:
        """Attend as `RunningRows`, to whole buffers under a mask that is computed in the step."""
        self._masks = {}
        return super().attend(layer, query, key, value, settings)

    @property
    def width(self) -> int:
        """The width that a step sees: that of the buffers."""
        return self.orders.shape[1] - 1

    def advance(self) -> None:
        """Count the new tokens after a pass, in place."""
        now = self.orders.gather(1, self.lengths[:, None])
        self.lengths += 1
        self.host_lengths = [length + 1 for length in self.host_lengths]
        self.orders.scatter_(1, self.lengths[:, None], now + 1)

    def select(self, rows: Sequence[int]) -> Int[Tensor, "kept"]:
        """Move these rows to the front; the bucket shrinks if they fit into a smaller one, within the same buffers."""
        bucket = bucket_of(len(rows))
        kept = to_device(torch.tensor(rows, dtype=torch.long), self.lengths.device)
        for one in (self.lengths, self.orders, *(one for pair in self.buffers.values() for one in pair)):
            one[: len(rows)] = one[kept]
        self.host_lengths = [self.host_lengths[row] for row in rows]
        if bucket < self.bucket:
            self.lengths, self.orders = self.lengths[:bucket], self.orders[:bucket]
            self.buffers = {layer: (keys[:bucket], values[:bucket]) for layer, (keys, values) in self.buffers.items()}
            self._indices = None
        return kept


class FixedStep:
    """One more token of each row of `rows`, captured as a graph at the first step of each bucket on a GPU."""

    def __init__(self, vlm: VLM, rows: FixedRows, forward: Forward) -> None:
        self._vlm, self._rows, self._forward = vlm, rows, forward
        self._graph: Any = None
        self._bucket = 0
        self._captures = vlm.device.type == "cuda"

    def __call__(self, tokens: Int[Tensor, "row"], positions: Int[Tensor, "row"]) -> Float[Tensor, "row dim"]:
        """Hidden states after the tokens at these positions."""
        if self._bucket != self._rows.bucket:
            self._bucket, self._graph = self._rows.bucket, None
            self._tokens = torch.zeros(self._bucket, dtype=torch.long, device=self._vlm.device)
            self._positions = torch.zeros_like(self._tokens)
            self._tokens[: len(tokens)], self._positions[: len(tokens)] = tokens, positions
            if self._captures:
                self._graph = self._capture()
        self._tokens[: len(tokens)], self._positions[: len(tokens)] = tokens, positions
        if self._graph is None:
            self._hidden = self._forward(self._tokens, self._positions)
        else:
            self._graph.replay()
        self._rows.advance()
        return self._hidden[: len(tokens)].clone()

    def _capture(self) -> Any:
        """The captured step, None if it cannot be captured; runs before it write the same keys at the same places."""
        try:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    self._forward(self._tokens, self._positions)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._hidden = self._forward(self._tokens, self._positions)
        except RuntimeError as error:
            log.warning(
                "decoding of %s runs without CUDA graphs (%s)", self._vlm.path, (str(error).splitlines() or [""])[0]
            )
            self._captures = False
            return None
        return graph
