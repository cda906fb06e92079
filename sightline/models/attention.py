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

from sightline.models.indexed import INDEXED
from sightline.models.linear_layers import LINEAR_KINDS, use_states
from sightline.models.packing import Packed, Span
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
        within = window is None or int(order.max()) < window
        causal = shared[:, None] >= shared[None]
        near = shared[:, None] - shared[None] < (window or len(order))
        if blocks is not None:
            block = blocks[span.shared]
            both_ways = (block[:, None] == block[None]) & (block[:, None] >= 0)
            causal = ((causal & near) | both_ways) if self.packed.blocks_over_window else ((causal | both_ways) & near)
        elif not within:
            causal &= near
        lengths = torch.tensor((span.prefix, *span.answers), device=order.device)
        owner = torch.arange(len(lengths), device=order.device).repeat_interleave(lengths)
        own_order, own = order[span.prefix :], owner[span.prefix :]
        branch = torch.tensor((0, *span.branches), device=order.device)[own]
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

    `Prefill` fills them in the pass over the prefixes; each further pass adds one token per row.
    """

    lengths: Int[Tensor, "row"]
    orders: Int[Tensor, "row place"]  # each token's index in its row, hidden ones included; also that of the next one
    places: Int[Tensor, "row source"]  # the tokens' places in the packed sequence that fills the buffers
    states: RowStates
    buffers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @staticmethod
    def of(packed: Packed, copies: Sequence[int], room: int) -> "RunningRows":
        """Create empty buffers for `copies[i]` rows of the i-th answer of all spans, with `room` for new tokens."""
        answers = [places for span in packed.spans for places in span.rows()]
        rows = [places for places, count in zip(answers, copies, strict=True) for _ in range(count)]
        lengths = torch.tensor([len(places) for places in rows])
        places = pad_sequence(rows, batch_first=True).to(packed.ids.device)
        orders = functional.pad(packed.order[places], (0, room))
        lengths = lengths.to(places.device)
        last = orders.gather(1, lengths[:, None] - 1)
        following = orders.scatter(1, lengths[:, None], last + 1)
        return RunningRows(lengths, following, places, RowStates.of(packed, copies))

    @property
    def members(self) -> Int[Tensor, "token"] | None:
        """None: all generated tokens are text."""
        return None

    @property
    def last(self) -> Int[Tensor, "row"]:
        """The place of each row's last token in the packed sequence; valid before the first step."""
        return self.places.gather(1, self.lengths[:, None] - 1)[:, 0]

    def last_positions(self, positions: Int[Tensor, "axis token"]) -> Int[Tensor, "row"]:
        """The largest position of each row, from those of the packed sequence; valid before the first step."""
        so_far = positions.amax(0)[self.places].cummax(1).values
        return so_far.gather(1, self.lengths[:, None] - 1)[:, 0]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, settings: AttentionSettings) -> Tensor:
        """Attend from one new token per row to all tokens of its row."""
        keys, values = self.buffers[layer]
        rows = torch.arange(len(keys), device=keys.device)
        keys[rows, :, self.lengths] = key[:, :, 0].to(keys.dtype)
        values[rows, :, self.lengths] = value[:, :, 0].to(values.dtype)
        if settings.mask is not None:
            width = settings.mask.shape[3] - 1
            keys, values = (torch.cat([kept[:, :, :width], new], 2) for kept, new in ((keys, key), (values, value)))
            return _sdpa(query, keys, values, settings.mask, settings)
        width = int(self.lengths.max()) + 1
        seen = torch.arange(width, device=keys.device) <= self.lengths[:, None]
        if settings.window is not None:
            now = self.orders.gather(1, self.lengths[:, None])
            seen &= now - self.orders[:, :width] < settings.window
        return _sdpa(query, keys[:, :, :width], values[:, :, :width], seen[:, None, None], settings)

    def advance(self) -> None:
        """Count the new tokens after a pass, and grow the buffers if they are full."""
        now = self.orders.gather(1, self.lengths[:, None])
        self.lengths = self.lengths + 1
        self.states.advance()
        if int(self.lengths.max()) == self.orders.shape[1]:
            self._grow(max(32, self.orders.shape[1] // 4))
        self.orders = self.orders.scatter(1, self.lengths[:, None], now + 1)

    def select(self, rows: Int[Tensor, "kept"]) -> None:
        """Keep only these rows."""
        self.lengths, self.orders, self.places = self.lengths[rows], self.orders[rows], self.places[rows]
        self.buffers = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self.buffers.items()}
        self.states.select(rows)

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
