"""Keys and values of prefixes that several running rows share: one copy a prefix, and not one a row.

Attention of a new token splits into a part over the shared prefix and a part over the row's own tokens. Each part gives
its output and the log of its softmax's denominator, by which the two are merged exactly. `attention` uses it where the
copies would take much memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sightline.models.device import to_device
from sightline.models.packing import Packed


class PartialAttention(NamedTuple):
    """The output of attention over some of the keys, and the log-sum-exp of its scores (float32)."""

    output: Float[Tensor, "row head dim"]
    logsumexp: Float[Tensor, "row head"]


def scaled_dot_product(
    query: Float[Tensor, "row head q dim"],
    key: Float[Tensor, "row kv_head k dim"],
    value: Float[Tensor, "row kv_head k dim"],
    seen: Bool[Tensor, "row k"],
    scale: float | None,
    softcap: float | None,
) -> PartialAttention:
    """Attention from one query a row; the heads that share keys are one matrix product."""
    row, head, _, dim = query.shape
    grouped = query.reshape(row, key.shape[1], -1, dim)
    found = _attend(grouped, key, value, seen[:, None, None], scale, softcap)
    return PartialAttention(found.output.reshape(row, head, -1), found.logsumexp.reshape(row, head))


@dataclass
class SharedKeys:
    """The prefixes of groups of rows, and the keys and values of each layer, padded on the right.

    Rows are grouped by prefix. `slots[g, i]` is the i-th row of group g, repeated where a group has fewer rows than
    another; `slot_of_row` is the inverse. A row sees the first `branches` tokens of its prefix.
    """

    rows: list[tuple[int, int]]  # of each row, its group and the number of tokens of the prefix that it sees
    places: Int[Tensor, "group place"]
    orders: Int[Tensor, "group place"]
    buffers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    slots: Int[Tensor, "group slot"] = field(init=False)
    slot_of_row: Int[Tensor, "row"] = field(init=False)
    branches: Int[Tensor, "row"] = field(init=False)
    groups: Int[Tensor, "row"] = field(init=False)

    def __post_init__(self) -> None:
        self._index()

    @staticmethod
    def of(packed: Packed, copies: Sequence[int]) -> "SharedKeys":
        """Empty buffers for `copies[i]` rows of the i-th answer of all spans."""
        counts = iter(copies)
        rows = [
            (group, branch)
            for group, span in enumerate(packed.spans)
            for branch in span.branches
            for _ in range(next(counts))
        ]
        prefixes = [torch.arange(span.start, span.start + span.prefix) for span in packed.spans]
        places = to_device(pad_sequence(prefixes, batch_first=True), packed.ids.device)
        return SharedKeys(rows, places, packed.order[places])

    def keep(self, layer: int, key: Float[Tensor, "1 kv_head token dim"], value: Tensor) -> None:
        """Keep the keys and values of one layer's pass over the packed sequence."""
        self.buffers[layer] = (key[0][:, self.places].transpose(0, 1), value[0][:, self.places].transpose(0, 1))

    def last_positions(self, largest: Int[Tensor, "token"]) -> Int[Tensor, "row"]:
        """The largest position in the part of the prefix that each row sees, from those of the packed sequence."""
        so_far = largest[self.places].cummax(1).values
        return so_far[self.groups, self.branches - 1]

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "row head 1 dim"],
        own: PartialAttention,
        scale: float | None,
        softcap: float | None,
        near: tuple[Int[Tensor, "row"], int] | None,
    ) -> Float[Tensor, "row head 1 dim"]:
        """Attend to the prefixes, and merge the result with that of the rows' own tokens.

        `near` is the index in its row of each new token, and the size of the window, if there is one.
        """
        keys, values = self.buffers[layer]
        group, slot = self.slots.shape
        _, head, _, dim = query.shape
        heads = keys.shape[1]
        queries = query[:, :, 0][self.slots].view(group, slot, heads, head // heads, dim).transpose(1, 2)
        seen = torch.arange(keys.shape[2], device=keys.device) < self.branches[self.slots][..., None]
        if near is not None:
            now, window = near
            seen &= now[self.slots][..., None] - self.orders[:, None] < window
        by_head = seen[:, None, :, None].expand(-1, -1, -1, head // heads, -1).flatten(2, 3)
        found = _attend(queries.reshape(group, heads, -1, dim), keys, values, by_head, scale, softcap)
        output = found.output.view(group, heads, slot, head // heads, -1).transpose(1, 2)
        output = output.reshape(group * slot, head, -1)
        sums = found.logsumexp.view(group, heads, slot, -1).transpose(1, 2).reshape(group * slot, head)
        shared = PartialAttention(output[self.slot_of_row], sums[self.slot_of_row])
        total = torch.logaddexp(shared.logsumexp, own.logsumexp)
        weights = [(part.logsumexp - total).exp()[..., None] for part in (shared, own)]
        merged = shared.output.float() * weights[0] + own.output.float() * weights[1]
        return merged.to(query.dtype)[:, :, None]

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, and the prefixes that they need."""
        self.rows = [self.rows[row] for row in rows]
        groups = sorted({group for group, _ in self.rows})
        if len(groups) < len(self.places):
            kept = to_device(torch.tensor(groups), self.places.device)
            self.places, self.orders = self.places[kept], self.orders[kept]
            self.buffers = {layer: (keys[kept], values[kept]) for layer, (keys, values) in self.buffers.items()}
            self.rows = [(groups.index(group), branch) for group, branch in self.rows]
        self._index()

    def bytes(self) -> int:
        """The bytes of all keys and values."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.buffers.values())

    def _index(self) -> None:
        members: list[list[int]] = [[] for _ in range(len(self.places))]
        for row, (group, _) in enumerate(self.rows):
            members[group].append(row)
        most = max(map(len, members))
        filled = [[*each, *[each[0] if each else 0] * (most - len(each))] for each in members]
        slot_of_row = [0] * len(self.rows)
        for group, each in enumerate(members):
            for slot, row in enumerate(each):
                slot_of_row[row] = group * most + slot
        device = self.places.device
        self.slots = to_device(torch.tensor(filled), device)
        self.slot_of_row = to_device(torch.tensor(slot_of_row), device)
        self.groups = to_device(torch.tensor([group for group, _ in self.rows]), device)
        self.branches = to_device(torch.tensor([branch for _, branch in self.rows]), device)


def _attend(
    query: Float[Tensor, "row head q dim"],
    key: Float[Tensor, "row head k dim"],
    value: Float[Tensor, "row head k dim"],
    seen: Bool[Tensor, "row #head #q k"],
    scale: float | None,
    softcap: float | None,
) -> PartialAttention:
    """Attention with its log-sum-exp. A query that sees nothing gives finite numbers with a vanishing sum."""
    scores = (query @ key.transpose(2, 3)).float() * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    sums = scores.logsumexp(-1)
    return PartialAttention((scores - sums[..., None]).exp().to(value.dtype) @ value, sums)
