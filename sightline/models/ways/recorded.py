"""Packed rows of any type of model: the model's own forward yields the decoder's inputs (`models.recording`).

A prefix is recorded with its images, answers are recorded as text alone; positions and masks of answers continue those
of their prefix. The rest is that of packed rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sightline.models.attention import AttentionLayout, decoder_arguments
from sightline.models.encoding import EncodedPrefix
from sightline.models.packing import Continuation, Packed, PackRow, Placement, SharedPrefix, pack, share_prefixes
from sightline.models.recording import DecoderPart, Recording, join, record, select
from sightline.models.unbatched import unbatched_inputs
from sightline.models.vlm import VLM, decoder_of
from sightline.models.ways.packed import Forward, PackedWay


@dataclass(frozen=True)
class RecordedWay(PackedWay):
    """Packed rows by recordings.

    `axes` is the number of positions per token, 0 for a decoder that takes one row of them. `plain_words` is whether
    the embedding layer alone gives the decoder's inputs for text.
    """

    name: str = "recorded"
    axes: int = 0
    plain_words: bool = False
    routes_tokens: bool = False

    def pack(self, vlm: VLM, rows: Sequence[PackRow]) -> tuple[Packed, Forward]:
        """As `PackedWay.pack`."""
        prefixes = [record(vlm.base, unbatched_inputs(vlm, row.prefix, ())) for row in rows]
        packed = pack(vlm, rows, [self.placement(one) for one in prefixes])
        text = _record_text(vlm, [row.prefill + tuple(i for answer in row.answers for i in answer) for row in rows])
        embedded, segments = [], []
        for row, prefix, own in zip(rows, prefixes, text, strict=True):
            segment, kept = _visible(vlm, row, prefix)
            segments += [segment, DecoderPart(own.others, len(own.embedded), 0)]
            embedded += [prefix.embedded[kept], own.embedded]
        inputs = {
            "inputs_embeds": torch.cat(embedded)[None],
            "position_ids": self.shaped(packed.positions[:, None]),
            **join(segments),
        }

        def forward(layout: AttentionLayout) -> Tensor:
            output = decoder_of(vlm.base)(**inputs, **decoder_arguments(vlm.base, layout))
            hidden: Tensor = output.last_hidden_state[0]
            return hidden

        return packed, forward

    def share(self, vlm: VLM, continuations: Sequence[Continuation]) -> list[SharedPrefix]:
        """As `PackedWay.share`; prefixes in which tokens see later ones are shared as a whole."""
        shared = share_prefixes(vlm, continuations)
        if len(shared) < len(continuations):
            first = record(vlm.base, unbatched_inputs(vlm, shared[0].row.prefix, ()))
            if first.masks:
                return share_prefixes(vlm, continuations, whole_prefixes=True)
        return shared

    def next_inputs(self, vlm: VLM, tokens: Int[Tensor, "row"], positions: Int[Tensor, "row"]) -> dict[str, Any]:
        """As `PackedWay.next_inputs`."""
        places = self.shaped(positions.expand(self.axes or 1, -1)[:, :, None])
        if self.plain_words:
            return {"inputs_embeds": vlm.base.get_input_embeddings()(tokens)[:, None], "position_ids": places}
        (text,) = _record_text(vlm, [tuple(tokens.tolist())])
        by_row = {name: _one_per_row(value, len(tokens)) for name, value in text.others.items()}
        return {"inputs_embeds": text.embedded[:, None], "position_ids": places, **by_row}

    def placement(self, recording: Recording) -> Placement:
        """Positions and masks of a prefix; a decoder that got no positions counts tokens on all axes."""
        positions = recording.positions
        if positions is None or len(positions) != max(self.axes, 1):
            positions = torch.arange(len(recording.embedded)).expand(max(self.axes, 1), -1)
        return Placement(positions, recording.masks)

    def shaped(self, positions: Int[Tensor, "axis row token"]) -> Int[Tensor, "..."]:
        """Positions in the shape that the decoder is called with."""
        return positions if self.axes else positions[0]


def recorded_way(vlm: VLM, prefix: EncodedPrefix) -> RecordedWay:
    """The way for a model, from one recording of a prefix with an image.

    Raises:
        UnknownInputs: the decoder's inputs cannot be recorded.
    """
    recording = record(vlm.base, unbatched_inputs(vlm, prefix, ()))
    axes = 0 if recording.positions is None else len(recording.positions)
    some = tuple(range(5, 9))
    (text,) = _record_text(vlm, [some])
    words = vlm.base.get_input_embeddings()(torch.tensor(some, device=vlm.device))
    plain_words = not text.others and words.shape == text.embedded.shape and torch.equal(words, text.embedded)
    return RecordedWay(axes=0 if axes == 1 else axes, plain_words=plain_words)


def _visible(vlm: VLM, row: PackRow, prefix: Recording) -> tuple[DecoderPart, Tensor]:
    """The prefix without hidden tokens: its further arguments, and which of its tokens are left."""
    is_image = torch.tensor(row.prefix.ids, device=vlm.device) == vlm.image_token_id
    images = torch.ones(int(is_image.sum()), dtype=torch.bool, device=vlm.device)
    images[sorted(row.hidden)] = False
    kept = torch.ones_like(is_image)
    kept[is_image] = images
    others = (
        {name: select(value, kept, images) for name, value in prefix.others.items()} if row.hidden else prefix.others
    )
    return DecoderPart(others, int(kept.sum()), int(images.sum())), kept


def _record_text(vlm: VLM, rows: Sequence[tuple[int, ...]]) -> list[Recording]:
    """The decoder's inputs of texts without a prefix, from one forward."""
    ids = [token for row in rows for token in row]
    lengths = [len(row) for row in rows]
    if not ids:
        nothing = vlm.base.get_input_embeddings()(torch.zeros(0, dtype=torch.long, device=vlm.device))
        return [Recording(nothing, None, {}, {}) for _ in rows]
    tokens = torch.tensor(ids, device=vlm.device)[None]
    whole = record(vlm.base, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
    parts = []
    for start, length in zip(torch.tensor([0, *lengths]).cumsum(0).tolist(), lengths, strict=False):
        own = torch.zeros(len(ids), dtype=torch.bool, device=vlm.device)
        own[start : start + length] = True
        others = {name: select(value, own, own[:0]) for name, value in whole.others.items()}
        parts.append(replace(whole, embedded=whole.embedded[own], positions=None, masks={}, others=others))
    return parts


def _one_per_row(value: Any, rows: int) -> Any:
    """An argument of one row of tokens as that of rows of one token."""
    if isinstance(value, Tensor) and value.ndim > 1 and value.shape[:2] == (1, rows):
        return value.transpose(0, 1)
    return value
