"""Image features, cached on disk while vision tower and projector are frozen.

The key is a hash of the vision weights, whether their adapter layers are enabled, the processed pixels and the dtypes.
If any part of the vision model is trained, nothing is cached and gradients flow.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from sightline.models.encoding import EncodedImages, model_inputs
from sightline.models.families import Features
from sightline.models.tensor_cache import content_key
from sightline.models.vlm import VLM, decoder_of, evaluating, head_of

#: Images of at most this many patches are small; with the usual 256 or more, one image keeps the device busy.
SMALL = 128
#: Small images per pass.
TOGETHER = 4

#: Image files, their kinds, and whether their pixels are zeroed (`EncodedImages.shown`).
Shown = tuple[tuple[Path, ...], tuple[str, ...], bool]


def image_features(vlm: VLM, images: Sequence[EncodedImages]) -> list[Features | None]:
    """The features of each prefix's images, None for a prefix without images.

    Prefixes with the same images share one pass. A pass covers the images of one prefix, or exactly `TOGETHER` small
    images: rounding depends on the shapes of matrix products, and so a feature's bits do not depend on the batch.
    """
    weights = list(_vision_weights(vlm))
    different = {each.shown: each for each in images if each.paths}
    if any(weight.requires_grad for _, weight in weights):
        features = {shown: _encode(vlm, each) for shown, each in different.items()}
    else:
        features = _frozen(vlm, different, weights)
    return [features.get(each.shown) for each in images]


def _frozen(
    vlm: VLM, images: Mapping[Shown, EncodedImages], weights: Sequence[tuple[str, Tensor]]
) -> dict[Shown, Features]:
    """Features from the cache; missing ones are computed and cached."""
    cache, cached = vlm.cache, {}
    if cache is not None:
        off = ("adapter off",) if _adapter_is_off(vlm, weights) else ()
        parts = (_vision_key(vlm, weights), *off, *_formats(vlm)) if images else ()
        keys = {paths: content_key("features", *parts, *_pixels(each)) for paths, each in images.items()}
        found = {paths: cache.get(key) for paths, key in keys.items()}
        cached = {paths: tensors for paths, tensors in found.items() if tensors is not None}
    missing = {paths: each for paths, each in images.items() if paths not in cached}
    with evaluating(vlm):  # a frozen tower has no dropout
        small = {paths: each for paths, each in missing.items() if _is_small(vlm, each)}
        new = _encode_small(vlm, small) if small else {}
        new |= {paths: _encode(vlm, each) for paths, each in missing.items() if paths not in small}
    if cache is not None:
        for paths, tensors in new.items():
            cache.put(keys[paths], tensors)
    return {
        paths: {name: value.to(vlm.device) for name, value in tensors.items()}
        for paths, tensors in (cached | new).items()
    }


def _is_small(vlm: VLM, images: EncodedImages) -> bool:
    """Whether images are so small that a pass over one is mostly overhead, and have no tensors but their pixels."""
    config = getattr(vlm.base.config, "vision_config", None)
    side = getattr(config, "patch_size", None)
    tensors = {name: value for name, value in images.tensors.items() if isinstance(value, Tensor)}
    pixels = tensors.get("pixel_values")
    if len(tensors) > 1 or pixels is None or pixels.ndim != 4 or not isinstance(side, int):
        return False
    return pixels.shape[2] * pixels.shape[3] <= SMALL * side * side


def _encode_small(vlm: VLM, images: Mapping[Shown, EncodedImages]) -> dict[Shown, Features]:
    """Encode `TOGETHER` images per pass, padding the last pass with copies of its last image."""
    each = [model_inputs(vlm, one)["pixel_values"] for one in images.values()]
    shapes = {pixels.shape[1:] for pixels in each}
    encoded: dict[Shown, Features] = {}
    for shape in shapes:
        alike = [(paths, pixels) for paths, pixels in zip(images, each, strict=True) if pixels.shape[1:] == shape]
        counts = [len(pixels) for _, pixels in alike]
        together = torch.cat([pixels for _, pixels in alike])
        filled = torch.cat([together, together[-1:].expand(-len(together) % TOGETHER, *shape)])
        passes = [vlm.family.features(vlm.base, {"pixel_values": some}) for some in filled.split(TOGETHER)]
        for name in passes[0]:
            values = torch.cat([one[name] for one in passes])
            tokens = len(values) // len(filled)
            parts = values[: tokens * len(together)].split([tokens * count for count in counts])
            for (paths, _), part in zip(alike, parts, strict=True):
                encoded.setdefault(paths, {})[name] = part.clone()
    return encoded


def _encode(vlm: VLM, images: EncodedImages) -> Features:
    return vlm.family.features(vlm.base, model_inputs(vlm, images))


def _pixels(images: EncodedImages) -> Iterator[str | Tensor]:
    for name in sorted(images.tensors):
        yield name
        yield images.tensors[name]


def _formats(vlm: VLM) -> tuple[str, ...]:
    autocast = torch.is_autocast_enabled(vlm.device.type)
    return (str(vlm.dtype), vlm.device.type, str(autocast), torch.__version__)


def _vision_weights(vlm: VLM) -> Iterator[tuple[str, nn.Parameter]]:
    """All weights except those of the language model and the head."""
    language = {id(p) for part in (decoder_of(vlm.base), head_of(vlm.base)) for p in part.parameters()}
    for name, weight in vlm.base.named_parameters():
        if id(weight) not in language:
            yield name, weight


def _adapter_is_off(vlm: VLM, weights: Sequence[tuple[str, Tensor]]) -> bool:
    """Whether the vision part has disabled adapter layers: the same weights give other features."""
    if not isinstance(vlm.model, PeftModel) or not any(
        f".{kind}" in name for name, _ in weights for kind in ("lora_", "modules_to_save")
    ):
        return False
    layers = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    return any(module.disable_adapters for module in vlm.base.modules() if isinstance(module, layers))


def _vision_key(vlm: VLM, weights: Sequence[tuple[str, Tensor]]) -> str:
    """Hash of the vision weights, computed once per model object, as frozen weights do not change."""
    known: str | None = getattr(vlm.base, "_sightline_vision_key", None)
    if known is None:
        known = content_key(vlm.base.config.to_json_string(), *(part for pair in weights for part in pair))
        vlm.base._sightline_vision_key = known
    return known
