"""The base class of model families. The defaults are LLaVA's; a family overrides what differs.

The engine feeds the language model itself: token embeddings with image features inserted, positions, and attention
patterns. A family defines the features of images, the positions, and the tokens that attend to each other both ways.
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
    """A family, stateless. `base` is the Transformers model, `images` the processor's tensors for one prefix."""

    #: Name of the module between vision and language; None if there is none.
    projector: str | None = "multi_modal_projector"
    #: Number of rotary positions per token.
    axes: int = 1
    #: Whether the processor itself appends to the prompt the text that the template puts before an answer.
    processor_adds_lead: bool = False
    #: Whether attention inside blocks ignores a layer's sliding window.
    blocks_over_window: bool = False
    #: Whether a layer's sliding window counts hidden image tokens; in hybrid models they are left out of every layer.
    counts_hidden: bool = True
    #: The kinds of media that a composed model takes, in order; empty for a model of one kind.
    names: tuple[str, ...] = ()
    #: The value of answer tokens in the processor's token types, if it returns any.
    answer_type: int = 0

    def supports(self, config: Any) -> bool:
        """Whether models with this config are verified; others are computed one row at a time."""
        return True

    def features(self, base: Any, images: Mapping[str, Tensor]) -> Features:
        """Compute the features of all images of a prefix: "tokens" of shape "token dim", in image token order."""
        output = self.encode_images(base, images)
        return {"tokens": _joined(output.pooler_output)}

    def encode_images(self, base: Any, images: Mapping[str, Tensor]) -> Any:
        """Run vision tower and projector with the tensors that the model's `get_image_features` takes."""
        encode = getattr(base, "model", base).get_image_features
        known = inspect.signature(encode).parameters
        return encode(**{k: v for k, v in images.items() if k in known}, return_dict=True)

    def embed(
        self, base: Any, ids: Int[Tensor, "token"], is_image: Bool[Tensor, "token"], features: Features | None
    ) -> Float[Tensor, "token dim"]:
        """Token embeddings with image features inserted."""
        words: Tensor = base.get_input_embeddings()(ids.masked_fill(is_image, 0))
        if features is None:
            return words
        return words.masked_scatter(is_image[:, None], features["tokens"].to(words.dtype))

    def positions(
        self, base: Any, ids: Int[Tensor, "token"], is_image: Bool[Tensor, "token"], images: Mapping[str, Tensor]
    ) -> Int[Tensor, "axis token"]:
        """Rotary positions of a prefix; an answer's continue from the largest."""
        return torch.arange(len(ids))[None]

    @property
    def adapters(self) -> tuple[str, ...]:
        """PEFT names of the adapters of image tokens, in the order of `names`; they equal no part of a layer's name."""
        return tuple(f"{name}-tokens" for name in self.names) or (MODALITY,)

    def media_kwargs(self, media: tuple[str, ...], images: int, where: str) -> dict[str, Any]:
        """Keyword arguments of the processor for the kinds of images, if a family takes several.

        Raises:
            InputError: the number of kinds differs from the number of images, or the model does not take a kind.
        """
        if media and len(media) != images:
            raise InputError(f"{where} names {len(media)} media and has {images} images; name one per image")
        if len(set(media)) > 1:
            raise InputError(
                f"{where} has the media {' and '.join(sorted(set(media)))} and this model takes one kind; compose "
                "models that take them (sightline compose)"
            )
        return {}

    def members(self, tokens: int, images: Mapping[str, Tensor]) -> Int[Tensor, "image_token"]:
        """The member of a composed model that each image token of a prefix belongs to; 0 for other models."""
        return torch.zeros(tokens, dtype=torch.long)

    def blocks(self, ids: Int[Tensor, "token"], is_image: Bool[Tensor, "token"]) -> Int[Tensor, "token"] | None:
        """Block numbers of a prefix (-1: no block), or None: tokens of a block attend to each other both ways."""
        return None

    def decoder_inputs(self, is_image: Bool[Tensor, "token"], features: Features | None) -> dict[str, Any]:
        """Additional arguments of the language model's forward."""
        return {}

    def decoder_positions(self, positions: Int[Tensor, "axis row token"]) -> Int[Tensor, "..."]:
        """Positions in the shape that the language model expects."""
        return positions[0]


def _joined(features: Any) -> Float[Tensor, "token dim"]:
    parts = list(features) if isinstance(features, list | tuple) else [features]
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


class Text(ModelFamily):
    """A text-only causal language model; prefixes have no images."""

    projector = None


class Lfm3(ModelFamily):
    """LFM3-VL: convolutions over tokens, which hidden ones are left out of, and attention with sliding windows."""

    counts_hidden = False


class MiniCPM(ModelFamily):
    """MiniCPM-V 4.6, whose processor writes the slices of an image as text."""

    projector = "merger"


class Idefics(ModelFamily):
    """Idefics 3 and SmolVLM, which differ in a name only: the processor writes rows and columns of tiles as text."""

    projector = "connector"
