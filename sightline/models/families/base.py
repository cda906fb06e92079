"""What a family of VLMs does in its own way. The defaults are LLaVA's; a family overrides what differs.

The engine feeds the language model itself: token embeddings with image features put in, positions, and who sees whom.
So an adapter says how pictures become features, how positions are counted, and which tokens see each other both ways.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.errors import InputError

Features = dict[str, Tensor]
#: PEFT's name for the adapter of all image tokens of a model of one kind.
MODALITY = "modality"


class ModelFamily:
    """One family; stateless. `base` is the Transformers model, `images` the processor's tensors for one prefix."""

    #: Name of the module between vision and language; None where there is none.
    projector: str | None = "multi_modal_projector"
    #: How many rotary positions a token has.
    axes: int = 1
    #: Whether the processor itself puts behind the prompt what the template puts before an answer.
    processor_adds_lead: bool = False
    #: Whether blocks see each other both ways however short a layer's sliding window is.
    blocks_over_window: bool = False
    #: The kinds of media that a composed model takes, in order; empty for a model of one kind.
    names: tuple[str, ...] = ()
    #: What an answer's tokens are called in the processor's token types, where it makes any.
    answer_type: int = 0

    def features(self, base: Any, images: Mapping[str, Tensor]) -> Features:
        """The features of all images of a prefix, "token dim" under "tokens", in the order of its image tokens."""
        made = self.encode_images(base, images)
        return {"tokens": _joined(made.pooler_output)}

    def encode_images(self, base: Any, images: Mapping[str, Tensor]) -> Any:
        """The family's own pass through vision tower and projector, with the tensors that it asks for."""
        known = inspect.signature(base.model.get_image_features).parameters
        return base.model.get_image_features(**{k: v for k, v in images.items() if k in known}, return_dict=True)

    def embed(
        self, base: Any, ids: Int[Tensor, "token"], is_image: Bool[Tensor, "token"], features: Features | None
    ) -> Float[Tensor, "token dim"]:
        """Token embeddings with the image features in place."""
        words: Tensor = base.get_input_embeddings()(ids.masked_fill(is_image, 0))
        if features is None:
            return words
        return words.masked_scatter(is_image[:, None], features["tokens"].to(words.dtype))

    def positions(
        self, base: Any, ids: Int[Tensor, "token"], is_image: Bool[Tensor, "token"], images: Mapping[str, Tensor]
    ) -> Int[Tensor, "axis token"]:
        """Rotary positions of a prefix; an answer's go on from the largest."""
        return torch.arange(len(ids))[None]

    @property
    def adapters(self) -> tuple[str, ...]:
        """What PEFT calls the adapters of image tokens, in the order of `names`; no part of a layer is called so."""
        return tuple(f"{name}-tokens" for name in self.names) or (MODALITY,)

    def told_of_media(self, media: tuple[str, ...], images: int, where: str) -> dict[str, Any]:
        """Further arguments of the processor: what each image is, for a family that takes several kinds.

        Raises:
            InputError: as many kinds as images are not named, or a kind is not one that the model takes.
        """
        if media and len(media) != images:
            raise InputError(f"{where} names {len(media)} media and has {images} images; let the numbers agree")
        if len(set(media)) > 1:
            raise InputError(
                f"{where} shows {' and '.join(sorted(set(media)))} and this model takes one kind; compose models that "
                "take them (sightline compose)"
            )
        return {}

    def members(self, tokens: int, images: Mapping[str, Tensor]) -> Int[Tensor, "image_token"]:
        """Which member of a composed model takes each image token of a prefix; a model of one kind is its own."""
        return torch.zeros(tokens, dtype=torch.long)

    def blocks(self, ids: Int[Tensor, "token"], is_image: Bool[Tensor, "token"]) -> Int[Tensor, "token"] | None:
        """Numbers that are equal where tokens of a prefix see each other both ways, -1 elsewhere; None if nowhere."""
        return None

    def decoder_inputs(self, is_image: Bool[Tensor, "token"], features: Features | None) -> dict[str, Any]:
        """Further arguments of the language model's forward."""
        return {}

    def decoder_positions(self, positions: Int[Tensor, "axis row token"]) -> Int[Tensor, "..."]:
        """Positions in the shape that the language model takes."""
        return positions[0]


def _joined(features: Any) -> Float[Tensor, "token dim"]:
    parts = list(features) if isinstance(features, list | tuple) else [features]
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


class Text(ModelFamily):
    """A causal language model; prefixes have no images."""

    projector = None


class Idefics(ModelFamily):
    """Nothing but the name differs: the processor spells out rows and columns of the tiles as text."""

    projector = "connector"
