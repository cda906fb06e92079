"""Attention over packed rows and over the key-value buffers of running rows, through Transformers' attention interface.

Registered with Transformers under `NAME`: the language model calls `attend` in every layer with the `layout` that the
engine passed to its forward. Without a layout it is Transformers' own SDPA.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from sightline.models.device import to_device
from sightline.models.indexed import INDEXED
from sightline.models.linear_layers import LINEAR_KINDS, use_states
from sightline.models.packing import Packed, Span
from sightline.models.shared_keys import SharedKeys, scaled_dot_product
from sightline.models.states import PackedStates, PrefillStates, RowStates, States
from sightline.models.vlm import decoder_of

NAME = "sightline"


@dataclass(frozen=True)
class AttentionSettings:
    """Settings of a layer: `window` is the number of tokens a token sees, itself included; None is all.

    `mask` is that of the current tokens and all tokens, for layers that change it (`indexed`).
    """

    scale: float | None
    dropout: float
    window: int | None
    softcap: float | None
    mask: Bool[Tensor, "row 1 query token"] | None = None


@runtime_checkable
class AttentionLayout(Protocol):
    """The attention pattern of one forward pass, and the member that each token belongs to."""

    @property
    def members(self) -> Int[Tensor, "token"] | None:
        """As `Packed.members`; None if no token is an image token."""
        ...

    @property
    def states(self) -> States:
        """The states of layers other than attention."""
        ...

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "row head query dim"],
        key: Float[Tensor, "row kv_head query dim"],
        value: Float[Tensor, "row kv_head query dim"],
        settings: AttentionSettings,
    ) -> Float[Tensor, "row head query dim"]:
        """The output of one layer's attention; keys and values are those of the current tokens."""
        ...


def attend(  # noqa: PLR0913 - the interface is Transformers'
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    layout: AttentionLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface."""
    window = kwargs["sliding_window"] if "sliding_window" in kwargs else _window(module)
    # A placeholder is not boolean.
    real = attention_mask if attention_mask is not None and attention_mask.dtype == torch.bool else None
    settings = AttentionSettings(scaling, dropout, window, kwargs.get("softcap"), real)
    if layout is None and settings.softcap is not None:
        return _sdpa(query, key, value, attention_mask, settings).transpose(1, 2), None
    if layout is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
        return output, None
    out = layout.attend(module.layer_idx, query, key, value, settings)
    return out.transpose(1, 2), None


def _window(module: Any) -> int | None:
    """The sliding window of a layer that does not hand it to the interface, because its mask contains it."""
    config = getattr(module, "config", None)
    kinds, layer = getattr(config, "layer_types", None), getattr(module, "layer_idx", None)
    slides = isinstance(layer, int) and kinds is not None and kinds[layer] == "sliding_attention"
    window = getattr(module, "sliding_window", getattr(config, "sliding_window", None) if slides else None)
    return window if isinstance(window, int) else None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


def use_layouts(base: Any) -> None:
    """Set this module as the attention implementation of the language model of `base`; layouts run its other layers."""
    decoder_of(base).set_attn_implementation(NAME)
    use_states(decoder_of(base))


def decoder_arguments(base: Any, layout: AttentionLayout) -> dict[str, Any]:
    """Arguments of the language model's forward; masks are placeholders that Transformers does not change.

    Only layers with an indexer read their mask and get a real one.
    """
    nothing = torch.zeros(1, 1, 1, 1)
    kinds = getattr(base.config.get_text_config(), "layer_types", None)
    mask = {kind: None if kind in LINEAR_KINDS else nothing for kind in kinds} if kinds else nothing
    arguments: dict[str, Any] = {"attention_mask": mask, "layout": layout, "use_cache": False}
    if isinstance(mask, dict) and INDEXED in mask:
        mask[INDEXED], arguments["past_key_values"] = layout.states.indexed()
    return arguments


@dataclass
class PackedLayout:
    """The layout of packed rows: a prefix attends to itself, an answer to its prefix and itself."""

    packed: Packed
    _masks: dict[tuple[int | None, str], list[tuple[Tensor | None, Tensor]]] = field(default_factory=dict)

    @property
    def members(self) -> Int[Tensor, "token"] | None:
        """The members of the packed sequence."""
        return self.packed.members

    @property
    def states(self) -> PackedStates:
        """States of packed rows."""
        return PackedStates(self.packed)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, settings: AttentionSettings) -> Tensor:
        """Attend with one call per prefix and one for its answers, if they have tokens."""
        if settings.mask is not None:
            return _sdpa(query, key, value, settings.mask, settings)
        out = []
        for span, (prefix, answers) in zip(
            self.packed.spans, self._masks_for(settings.window, self.packed.kind(layer)), strict=True
        ):
            shared, own, whole = span.shared, span.own, span.whole
            out.append(_sdpa(query[:, :, shared], key[:, :, shared], value[:, :, shared], prefix, settings))
            if any(span.answers):
                out.append(_sdpa(query[:, :, own], key[:, :, whole], value[:, :, whole], answers, settings))
        return torch.cat(out, dim=2)

    def _masks_for(self, window: int | None, kind: str) -> list[tuple[Tensor | None, Tensor]]:
        if (window, kind) not in self._masks:
            of_kind = self.packed.masks.get(kind, (None,) * len(self.packed.spans))
            self._masks[window, kind] = [
                self._mask(span, window, mask) for span, mask in zip(self.packed.spans, of_kind, strict=True)
            ]
        return self._masks[window, kind]

    def _mask(
        self, span: Span, window: int | None, first: Bool[Tensor, "token token"] | None = None
    ) -> tuple[Bool[Tensor, "prefix prefix"] | None, Bool[Tensor, "answers all"]]:
        """The masks of the prefix (None if simply causal) and of its answers; `first` is that of its first tokens."""
        order, blocks = self.packed.order[span.whole], self.packed.blocks
        shared = order[: span.prefix]
        within = window is None or span.longest < window
        causal = shared[:, None] >= shared[None]
        near = shared[:, None] - shared[None] < (window or len(order))
        if blocks is not None:
            block = blocks[span.shared]
            both_ways = (block[:, None] == block[None]) & (block[:, None] >= 0)
            causal = ((causal & near) | both_ways) if self.packed.blocks_over_window else ((causal | both_ways) & near)
        elif not within:
            causal &= near
        lengths = torch.tensor((span.prefix, *span.answers))
        owner = to_device(torch.arange(len(lengths)).repeat_interleave(lengths), order.device)
        own_order, own = order[span.prefix :], owner[span.prefix :]
        branch = to_device(torch.tensor((0, *span.branches)), order.device)[own]
        in_branch = torch.arange(len(order), device=order.device)[None] < branch[:, None]
        seen = in_branch | ((owner[None] == own[:, None]) & (order[None] <= own_order[:, None]))
        if not within and window is not None:
            seen &= own_order[:, None] - order[None] < window
        if first is not None:
            causal = causal & near
            causal[: len(first), : len(first)] = first
        return (None if blocks is None and first is None and within else causal), seen


@dataclass
class RunningRows:
    """Key-value buffers of rows being continued, one per layer, padded on the right, and states of linear layers.

    `Prefill` fills them in the pass over the prefixes; each further pass adds one token per row. With `shared` the
    buffers hold only what follows the prefix, and rows with a common prefix attend to one copy of it. All lengths are
    also known to the host, so that no layer waits for the device; the masks of a step are built once for all layers.
    """

    lengths: Int[Tensor, "row"]  # tokens in the buffers
    host_lengths: list[int]  # the same
    orders: Int[Tensor, "row place"]  # each token's index in its row, hidden ones included; also that of the next one
    places: Int[Tensor, "row source"]  # the tokens' places in the packed sequence that fills the buffers
    last: Int[Tensor, "row"]  # the place of each row's last token in the packed sequence
    states: RowStates
    shared: SharedKeys | None = None
    buffers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _masks: dict[int | None, Bool[Tensor, "row place"]] = field(default_factory=dict)
    _indices: Int[Tensor, "row"] | None = None

    @staticmethod
    def of(packed: Packed, copies: Sequence[int], room: int, *, share: bool = False) -> "RunningRows":
        """Create empty buffers for `copies[i]` rows of the i-th answer of all spans, with `room` for new tokens.

        With `share` the rows of a span keep one copy of its prefix.
        """
        device = packed.ids.device
        answers = [places for span in packed.spans for places in span.rows()]
        branches = [branch if share else 0 for span in packed.spans for branch in span.branches]
        rows = [
            (places, branch)
            for places, branch, count in zip(answers, branches, copies, strict=True)
            for _ in range(count)
        ]
        own = [places[branch:] for places, branch in rows]
        lengths = [len(places) for places in own]
        last = to_device(torch.tensor([int(places[-1]) for places, _ in rows]), device)
        places = to_device(pad_sequence(own, batch_first=True), device)
        on_device = to_device(torch.tensor(lengths), device)
        orders = functional.pad(packed.order[places], (0, room))
        orders = orders.scatter(1, on_device[:, None], packed.order[last][:, None] + 1)
        shared = SharedKeys.of(packed, copies) if share else None
        return RunningRows(on_device, lengths, orders, places, last, RowStates.of(packed, copies), shared)

    @property
    def members(self) -> Int[Tensor, "token"] | None:
        """None: all generated tokens are text."""
        return None

    @property
    def width(self) -> int:
        """The number of tokens of the longest row's buffer."""
        return max(self.host_lengths)

    def last_positions(self, positions: Int[Tensor, "axis token"]) -> Int[Tensor, "row"]:
        """The largest position of each row, from those of the packed sequence; valid before the first step."""
        largest = positions.amax(0)
        found = largest[self.last]
        if self.shared is not None:
            found = torch.maximum(found, self.shared.last_positions(largest))
        if not self.places.shape[1]:
            return found
        so_far = largest[self.places].cummax(1).values
        own = so_far.gather(1, (self.lengths - 1).clamp(min=0)[:, None])[:, 0]
        return torch.where(self.lengths > 0, torch.maximum(found, own), found)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, settings: AttentionSettings) -> Tensor:
        """Attend from one new token per row to all tokens of its row."""
        keys, values = self.buffers[layer]
        if self._indices is None:
            self._indices = torch.arange(len(keys), device=keys.device)
        keys[self._indices, :, self.lengths] = key[:, :, 0].to(keys.dtype)
        values[self._indices, :, self.lengths] = value[:, :, 0].to(values.dtype)
        if settings.mask is not None:
            width = settings.mask.shape[3] - 1
            keys, values = (torch.cat([kept[:, :, :width], new], 2) for kept, new in ((keys, key), (values, value)))
            return _sdpa(query, keys, values, settings.mask, settings)
        width = self.width + 1
        seen = self._seen(settings.window, width)
        if self.shared is None:
            return _sdpa(query, keys[:, :, :width], values[:, :, :width], seen[:, None, None], settings)
        scale, softcap = settings.scale, settings.softcap
        own = scaled_dot_product(query, keys[:, :, :width], values[:, :, :width], seen, scale, softcap)
        near = None
        if settings.window is not None:
            near = self.orders.gather(1, self.lengths[:, None])[:, 0], settings.window
        return self.shared.attend(layer, query, own, scale, softcap, near)

    def _seen(self, window: int | None, width: int) -> Bool[Tensor, "row place"]:
        """The tokens of the buffers that the new token sees, built once a step for all layers with this window."""
        if window not in self._masks:
            seen = torch.arange(width, device=self.lengths.device) <= self.lengths[:, None]
            if window is not None:
                now = self.orders.gather(1, self.lengths[:, None])
                seen &= now - self.orders[:, :width] < window
            self._masks[window] = seen
        return self._masks[window]

    def advance(self) -> None:
        """Count the new tokens after a pass, and grow the buffers if they are full."""
        now = self.orders.gather(1, self.lengths[:, None])
        self.lengths = self.lengths + 1
        self.host_lengths = [length + 1 for length in self.host_lengths]
        self._masks = {}
        self.states.advance()
        if self.width == self.orders.shape[1]:
            self._grow(max(32, self.orders.shape[1] // 4))
        self.orders = self.orders.scatter(1, self.lengths[:, None], now + 1)

    def select(self, rows: Sequence[int]) -> Int[Tensor, "kept"]:
        """Keep only these rows; returns them as a tensor on the device."""
        kept = to_device(torch.tensor(rows, dtype=torch.long), self.lengths.device)
        self.host_lengths = [self.host_lengths[row] for row in rows]
        self.lengths, self.orders, self.last = self.lengths[kept], self.orders[kept], self.last[kept]
        self.places = self.places[kept]
        self.buffers = {layer: (keys[kept], values[kept]) for layer, (keys, values) in self.buffers.items()}
        self._masks, self._indices = {}, None
        self.states.select(kept)
        if self.shared is not None:
            self.shared.select(rows)
        return kept

    def bytes(self) -> int:
        """The bytes of all keys, values and states."""
        kept = sum(keys.nbytes + values.nbytes for keys, values in self.buffers.values()) + self.states.bytes()
        return kept + (0 if self.shared is None else self.shared.bytes())

    def _grow(self, more: int) -> None:
        self.orders = functional.pad(self.orders, (0, more))
        for layer, (keys, values) in self.buffers.items():
            self.buffers[layer] = (functional.pad(keys, (0, 0, 0, more)), functional.pad(values, (0, 0, 0, more)))


@dataclass
class Prefill:
    """The layout of the pass over packed rows that stores their keys, values and states in `running`."""

    layout: PackedLayout
    running: RunningRows

    @property
    def members(self) -> Int[Tensor, "token"] | None:
        """The members of the packed rows."""
        return self.layout.members

    @property
    def states(self) -> PrefillStates:
        """States of packed rows, kept in those of `running`."""
        return PrefillStates(self.layout.packed, self.running.states)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, settings: AttentionSettings) -> Tensor:
        """Attend as `PackedLayout`, and store keys and values."""
        self.running.buffers[layer] = (self._gather(key), self._gather(value))
        if self.running.shared is not None:
            self.running.shared.keep(layer, key, value)
        return self.layout.attend(layer, query, key, value, settings)

    def _gather(self, states: Float[Tensor, "1 kv_head token dim"]) -> Float[Tensor, "row kv_head place dim"]:
        rows, width = self.running.places.shape
        kept = states.new_zeros(rows, states.shape[1], self.running.orders.shape[1], states.shape[3])
        kept[:, :, :width] = states[0][:, self.running.places].transpose(0, 1)
        return kept


def _sdpa(
    query: Float[Tensor, "row head q dim"],
    key: Float[Tensor, "row kv_head k dim"],
    value: Float[Tensor, "row kv_head k dim"],
    mask: Tensor | None,
    settings: AttentionSettings,
) -> Float[Tensor, "row head q dim"]:
    """Scaled dot-product attention; causal without a mask."""
    grouped = key.shape[1] != query.shape[1]
    if settings.softcap is None:
        return functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=settings.dropout,
            is_causal=mask is None,
            scale=settings.scale,
            enable_gqa=grouped,
        )
    if grouped:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = settings.scale if settings.scale is not None else query.shape[-1] ** -0.5
    scores = torch.tanh(query @ key.transpose(2, 3) * scale / settings.softcap) * settings.softcap
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    weights = torch.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), -1, dtype=torch.float32)
    return functional.dropout(weights.to(query.dtype), settings.dropout) @ value
