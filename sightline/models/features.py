"""Image features, each computed once: while vision tower and projector are frozen they come from a cache on disk.

The key is content: weights of the vision part, processed pixels, number formats. Where anything of the vision part is
trained nothing is cached and gradients flow.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sightline.models.encoding import Images, model_inputs
from sightline.models.families import Features
from sightline.models.tensor_cache import content_key
from sightline.models.vlm import VLM, evaluating


def image_features(vlm: VLM, images: Sequence[Images]) -> list[Features | None]:
    """The features of each prefix's images, None where it has none.

    Prefixes with the same pictures share one pass, and every pass is over the pictures of one prefix alone, so that a
    feature's last bits do not depend on the batch.
    """
    weights = list(_vision_weights(vlm))
    trained = any(weight.requires_grad for _, weight in weights)
    made: dict[tuple[Any, ...], Features] = {}
    for each in images:
        if each.paths and each.paths not in made:
            made[each.paths] = _encode(vlm, each) if trained else _cached(vlm, each, weights)
    return [made.get(each.paths) for each in images]


def _cached(vlm: VLM, images: Images, weights: Sequence[tuple[str, Tensor]]) -> Features:
    def compute() -> Features:
        with evaluating(vlm):  # a frozen tower has no dropout
            return _encode(vlm, images)

    if vlm.cache is None:
        return compute()
    key = content_key("features", _vision_key(vlm, weights), *_pixels(images), *_formats(vlm))
    return {name: value.to(vlm.device) for name, value in vlm.cache.fetch(key, compute).items()}


def _encode(vlm: VLM, images: Images) -> Features:
    return vlm.family.features(vlm.base, model_inputs(vlm, images))


def _pixels(images: Images) -> Iterator[str | Tensor]:
    for name in sorted(images.tensors):
        yield name
        yield images.tensors[name]


def _formats(vlm: VLM) -> tuple[str, ...]:
    autocast = torch.is_autocast_enabled(vlm.device.type)
    return (str(vlm.dtype), vlm.device.type, str(autocast), torch.__version__)


def _vision_weights(vlm: VLM) -> Iterator[tuple[str, nn.Parameter]]:
    """Everything but the language model and the head."""
    told = {id(p) for part in (vlm.base.get_decoder(), vlm.base.get_output_embeddings()) for p in part.parameters()}
    for name, weight in vlm.base.named_parameters():
        if id(weight) not in told:
            yield name, weight


def _vision_key(vlm: VLM, weights: Sequence[tuple[str, Tensor]]) -> str:
    """Hashed once per model object: frozen weights stay what they are."""
    known: str | None = getattr(vlm.base, "_sightline_vision_key", None)
    if known is None:
        known = content_key(vlm.base.config.to_json_string(), *(part for pair in weights for part in pair))
        vlm.base._sightline_vision_key = known
    return known
