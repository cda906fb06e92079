"""Prefixes in Transformers' own cache: a prefix is computed once, its answers are one batch that continues the cache.

It needs no knowledge of the model's type beyond what Transformers' `generate` needs, and so is the fallback for types
that cannot be packed: cross-attention, indexers that pool neighboring tokens, layers with states.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from inspect import signature
from types import MethodType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import LinearAttentionLayer

from sightline.models.device import to_device
from sightline.models.head import token_entropy
from sightline.models.packing import Continuation, Ids, PackRow
from sightline.models.recording import UnknownInputs, positions_of
from sightline.models.unbatched import PER_TOKEN, continued_mask, hidden_tokens, unbatched_inputs
from sightline.models.vlm import VLM, decoder_of
from sightline.models.ways.base import AnswerStates, TokenScores
from sightline.models.ways.row_by_row import RowByRowWay


@dataclass(frozen=True)
class CachedWay:
    """Each prefix once, through Transformers' cache; differentiable."""

    name: str = "cached"
    hiding: str | None = None
    head: str = ""
    routes_tokens: bool = False

    def scores(self, vlm: VLM, rows: Sequence[PackRow], *, entropy: bool = False) -> TokenScores:
        """As `Way.scores`."""
        if _drops_cache(vlm):
            return RowByRowWay(hiding=self.hiding).scores(vlm, rows, entropy=entropy)
        logps, entropies = [], []
        for row in rows:
            for answer, logits in zip(row.answers, self._logits(vlm, row), strict=True):
                logps.append(_logps(logits, answer))
                if entropy:
                    entropies.append(token_entropy(logits))
        return TokenScores(torch.cat(logps), torch.cat(entropies) if entropy else None)

    def states(self, vlm: VLM, rows: Sequence[PackRow], *, logps: bool = False) -> AnswerStates:  # noqa: ARG002
        """As `Way.states`; the log-probs cost nothing and are always returned."""
        if _drops_cache(vlm):
            return RowByRowWay(hiding=self.hiding).states(vlm, rows)
        before, last, scores = [], [], []
        for row in rows:
            with _states_kept(vlm) as kept:
                logits = self._logits(vlm, row)
            first, more = kept
            for number, (answer, own) in enumerate(zip(row.answers, logits, strict=True)):
                states = torch.cat([first[0, -1:], more[number, : len(answer)]])
                before.append(states[:-1])
                last.append(states[-1])
                scores.append(_logps(own, answer))
        return AnswerStates(torch.cat(before), torch.stack(last), torch.cat(scores))

    def logits(self, vlm: VLM, rows: Sequence[PackRow]) -> Iterator[Float[Tensor, "answer_token vocab"]]:
        """As `Way.logits`."""
        if _drops_cache(vlm):
            yield from RowByRowWay(hiding=self.hiding).logits(vlm, rows)
            return
        for row in rows:
            yield from self._logits(vlm, row)

    def start(self, vlm: VLM, continuations: Sequence[Continuation], new_tokens: int) -> "CachedDecoding":  # noqa: ARG002
        """As `Way.start`; equal rows share a cache."""
        groups: dict[Any, list[int]] = {}
        for number, one in enumerate(continuations):
            groups.setdefault((one.group, one.ids), []).append(number)
        prefixes = []
        for numbers in groups.values():
            one = continuations[numbers[0]]
            prefixes.append(self._prefix(vlm, one.prefix, one.prefill, one.hidden).repeated(len(numbers)))
        return CachedDecoding(vlm, [number for numbers in groups.values() for number in numbers], prefixes)

    def _logits(self, vlm: VLM, row: PackRow) -> list[Float[Tensor, "token vocab"]]:
        """For each answer of a row, the logits (float32) that predict its tokens."""
        prefix = self._prefix(vlm, row.prefix, (), row.hidden)
        first = prefix.logits
        answers = [torch.tensor(answer, device=vlm.device) for answer in row.answers]
        ids = pad_sequence(answers, batch_first=True)
        # Layers with states have another kernel for single tokens, which computes in place.
        ids = functional.pad(ids, (0, max(0, 2 - ids.shape[1])))
        more = prefix.repeated(len(answers)).continued(vlm, ids)
        return [torch.cat([first, more[n, : len(answer) - 1]]).float() for n, answer in enumerate(row.answers)]

    def _prefix(self, vlm: VLM, prefix: Any, prefill: Ids, hidden: frozenset[int]) -> "CachedPrefix":
        """Run a prefix and its prefill with a cache."""
        inputs = unbatched_inputs(vlm, prefix, prefill)
        seen: list[dict[str, Any]] = []
        known = signature(vlm.base.forward).parameters
        one = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        with hidden_tokens(vlm, prefix, hidden, self.hiding):
            handle = decoder_of(vlm.base).register_forward_pre_hook(
                lambda _, __, kwargs: seen.append(kwargs), with_kwargs=True
            )
            try:
                output = vlm.model(**inputs, use_cache=True, **one)
            finally:
                handle.remove()
        cache = output.past_key_values
        if cache is None or not hasattr(cache, "layers") or not seen:
            raise UnknownInputs("the model returns no cache")
        _assign_states(cache)
        positions = positions_of(seen[0])
        length = inputs["input_ids"].shape[1]
        mask = torch.ones(1, length, dtype=torch.long, device=vlm.device)
        if hidden:
            places = (inputs["input_ids"][0, : len(prefix.ids)] == vlm.image_token_id).nonzero()[:, 0]
            mask[0, places[sorted(hidden)]] = 0
        mask = mask[:, mask[0] > 0] if self.hiding == "left out" else mask
        return CachedPrefix(
            cache,
            output.logits[0, -1:],
            length if positions is None else int(positions.max()) + 1,
            0 if positions is None or seen[0]["position_ids"].ndim < 3 else len(positions),
            mask,
            tuple(prefix.token_types),
            "position_ids" in known,
            inputs.get(PER_TOKEN),
        )


@dataclass
class CachedPrefix:
    """A cache for one or more equal rows, the logits after its last token, and what continues it."""

    cache: Any
    logits: Float[Tensor, "row vocab"]
    position: int
    axes: int
    mask: Int[Tensor, "row token"]
    types: tuple[str, ...]
    takes_positions: bool
    cross: Tensor | None

    def repeated(self, rows: int) -> "CachedPrefix":
        """The same row several times."""
        self.reorder(torch.zeros(rows, dtype=torch.long, device=self.mask.device))
        return self

    def reorder(self, rows: Int[Tensor, "row"]) -> None:
        """Keep these rows of the cache, in this order."""
        for layer in self.cache.layers:
            if hasattr(layer, "reorder_cache"):
                layer.reorder_cache(rows)
        self.logits, self.mask = self.logits[rows], self.mask[rows]

    def continued(self, vlm: VLM, ids: Int[Tensor, "row token"]) -> Float[Tensor, "row token vocab"]:
        """Run more tokens of each row, which the cache then contains."""
        rows, count = ids.shape
        places = self.position + torch.arange(count, device=ids.device)
        shape = (self.axes, rows, count) if self.axes else (rows, count)
        self.mask = functional.pad(self.mask, (0, count), value=1)
        more = {name: torch.zeros_like(ids) for name in self.types}
        if self.cross is not None:
            self.cross = continued_mask(self.cross, count)
            more[PER_TOKEN] = self.cross.expand(rows, *self.cross.shape[1:])
        if self.takes_positions:
            more["position_ids"] = places.expand(shape)
        output = vlm.model(input_ids=ids, attention_mask=self.mask, past_key_values=self.cache, use_cache=True, **more)
        self.position += count
        logits: Tensor = output.logits
        return logits


@dataclass
class CachedDecoding:
    """Groups of equal rows, each with its cache."""

    vlm: VLM
    order: list[int]
    groups: list[CachedPrefix]
    _kept: list[int] = field(default_factory=list)

    @property
    def logits(self) -> Float[Tensor, "row vocab"]:
        """The logits of the next tokens."""
        return torch.cat([group.logits for group in self.groups]).float()

    def step(self, tokens: Int[Tensor, "row"]) -> None:
        """Run the model for one more token of each row."""
        for group, own in zip(self.groups, tokens.split([len(group.logits) for group in self.groups]), strict=True):
            group.logits = group.continued(self.vlm, own[:, None])[:, -1]

    def select(self, rows: Sequence[int]) -> Int[Tensor, "kept"]:
        """Keep only these rows."""
        kept = to_device(torch.tensor(rows, dtype=torch.long), self.vlm.device)
        start, groups = 0, []
        for group in self.groups:
            own = kept[(kept >= start) & (kept < start + len(group.logits))] - start
            start += len(group.logits)
            if len(own):
                group.reorder(own)
                groups.append(group)
        self.groups = groups
        return kept


def _drops_cache(vlm: VLM) -> bool:
    """Whether Transformers drops its cache because activations are checkpointed; rows are computed alone then."""
    return bool(vlm.base.training) and any(
        getattr(module, "gradient_checkpointing", False) for module in decoder_of(vlm.base).modules()
    )


def _logps(logits: Float[Tensor, "token vocab"], answer: Ids) -> Float[Tensor, "token"]:
    ids = torch.tensor(answer, device=logits.device)
    return -functional.cross_entropy(logits, ids, reduction="none")


@contextlib.contextmanager
def _states_kept(vlm: VLM) -> Iterator[list[Tensor]]:
    """Context in which the decoder's last hidden states are kept, one tensor per pass."""
    kept: list[Tensor] = []
    handle = decoder_of(vlm.base).register_forward_hook(lambda _, __, output: kept.append(output[0]))
    try:
        yield kept
    finally:
        handle.remove()


def _assign_states(cache: Any) -> None:
    """Let layers with states assign new ones: Transformers copies them in place, which autograd refuses."""
    for layer in cache.layers:
        if isinstance(layer, LinearAttentionLayer):
            own: Any = layer
            own.update_conv_state = MethodType(_conv_state, layer)
            own.update_recurrent_state = MethodType(_recurrent_state, layer)


def _conv_state(
    layer: Any, conv_states: Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **_: Any
) -> Tensor:
    width = conv_kernel_size or layer.conv_kernel_size[state_idx]
    whole = torch.cat([layer.conv_states[state_idx], conv_states], dim=-1)
    layer.conv_states[state_idx] = whole[..., -width:]
    return whole


def _recurrent_state(layer: Any, recurrent_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
    layer.recurrent_states[state_idx] = recurrent_states
    layer.is_recurrent_states_initialized[state_idx] = True
    return recurrent_states
