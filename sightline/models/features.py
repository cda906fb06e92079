"""Image features, kept while vision tower and projector are frozen: in memory, and on disk where that saves time.

The key on disk is a hash of the vision weights, whether their adapter layers are enabled, the processed pixels and the
dtypes. If any part of the vision model is trained, nothing is kept and gradients flow. A large picture's features may
take longer to write than to compute, as on a GPU; both are measured, and the disk is then left alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from jaxtyping import Bool
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from sightline.models.device import to_device
from sightline.models.encoding import EncodedImages, model_inputs
from sightline.models.families import Features
from sightline.models.tensor_cache import ByteLRU, TensorCache, WriteCosts, content_key
from sightline.models.vlm import VLM, decoder_of, evaluating, head_of

#: Images of at most this many patches are small; with the usual 256 or more, one image keeps the device busy.
SMALL = 128
#: Small images per pass.
TOGETHER = 4

#: Image files, their kinds, and whether their pixels are zeroed (`EncodedImages.shown`).
Shown = tuple[tuple[Path, ...], tuple[str, ...], bool]
#: For each image token of a prefix whether it is not hidden; None if none is.
Mask = Bool[Tensor, "feature"] | None
#: The part of a GPU's memory in which features are kept; on a CPU it is the limit of `ByteLRU`.
MEMORY_SHARE = 1 / 16


def image_features(
    vlm: VLM, images: Sequence[EncodedImages], masks: Sequence[Mask] | None = None
) -> list[Features | None]:
    """The features of each prefix's images, without those that its mask hides; None for a prefix without images.

    Prefixes with the same images share one pass. A pass covers the images of one prefix, or exactly `TOGETHER` small
    images: rounding depends on the shapes of matrix products, and so a feature's bits do not depend on the batch.
    """
    weights = list(_vision_weights(vlm))
    masks = masks or [None] * len(images)
    different = {each.shown: each for each in images if each.paths}
    if any(weight.requires_grad for _, weight in weights):
        features = {shown: _encode(vlm, each) for shown, each in different.items()}
        return [_visible(vlm, features.get(each.shown), mask) for each, mask in zip(images, masks, strict=True)]
    if vlm.cache is None:
        features = _computed(vlm, different)
        return [_visible(vlm, features.get(each.shown), mask) for each, mask in zip(images, masks, strict=True)]
    return _kept(vlm, vlm.cache, weights, list(zip(images, masks, strict=True)))


def _visible(vlm: VLM, features: Features | None, mask: Mask) -> Features | None:
    if features is None or mask is None:
        return features
    rows = to_device(mask.nonzero()[:, 0], vlm.device)
    return {name: value[rows] for name, value in features.items()}


def _kept(
    vlm: VLM,
    cache: TensorCache,
    weights: Sequence[tuple[str, Tensor]],
    requests: Sequence[tuple[EncodedImages, Mask]],
) -> list[Features | None]:
    """Features from memory or, where that saves time, from the disk; missing ones are computed and kept.

    Of images of which no prefix shows more than half, only the tokens shown are kept in memory.
    """
    off = ("adapter off",) if _adapter_is_off(vlm, weights) else ()
    parts = (_vision_key(vlm, weights), *off, *_formats(vlm)) if any(each.paths for each, _ in requests) else ()
    memory = _memory(vlm)
    masks: dict[Shown, list[Mask]] = {}
    for images, mask in requests:
        masks.setdefault(images.shown, []).append(mask)
    found: dict[tuple[Shown, bytes | None], Features] = {}
    missing: dict[Shown, EncodedImages] = {}
    for images in {each.shown: each for each, _ in requests if each.paths}.values():
        whole = memory.get((parts, images.shown, images.stamps, None))
        for mask in masks[images.shown]:
            name = _bytes_of(mask)
            if whole is not None:
                found[images.shown, name] = _visible(vlm, whole, mask) or {}
            elif (some := memory.get((parts, images.shown, images.stamps, name))) is not None:
                found[images.shown, name] = some
            else:
                missing[images.shown] = images
        cache.hits += images.shown not in missing
    for shown, features in _from_disk(vlm, cache, parts, missing).items():
        few = all(mask is not None and 2 * int(mask.sum()) <= len(mask) for mask in masks[shown])
        if not few:
            memory.put((parts, shown, missing[shown].stamps, None), features, _size(features))
        for mask in masks[shown]:
            some = _visible(vlm, features, mask) or {}
            found[shown, _bytes_of(mask)] = some
            if few:
                memory.put((parts, shown, missing[shown].stamps, _bytes_of(mask)), some, _size(some))
    return [found.get((images.shown, _bytes_of(mask))) for images, mask in requests]


def _bytes_of(mask: Mask) -> bytes | None:
    return None if mask is None else mask.numpy().tobytes()


def _size(features: Features) -> int:
    return sum(value.nbytes for value in features.values())


def _memory(vlm: VLM) -> ByteLRU[Features]:
    memory: ByteLRU[Features] = vlm.features
    if vlm.device.type == "cuda":
        memory.limit = int(torch.cuda.get_device_properties(vlm.device).total_memory * MEMORY_SHARE)
    return memory


def _from_disk(
    vlm: VLM, cache: TensorCache, parts: tuple[str, ...], images: Mapping[Shown, EncodedImages]
) -> dict[Shown, Features]:
    """Features from the disk if it is used; missing ones are computed and, if it is used, written there."""
    if not cache.costs.pays:
        cache.misses += len(images)
        return _computed(vlm, images)
    keys = {shown: content_key("features", *parts, *_pixels(each)) for shown, each in images.items()}
    cached = {shown: tensors for shown, key in keys.items() if (tensors := cache.get(key)) is not None}
    missing = {shown: each for shown, each in images.items() if shown not in cached}
    new = _computed(vlm, missing, cache.costs)
    for shown, tensors in new.items():
        with cache.costs.writing(measured=not _is_small(vlm, missing[shown])):
            cache.put(keys[shown], tensors)
    return {
        shown: {name: value.to(vlm.device) for name, value in tensors.items()}
        for shown, tensors in (cached | new).items()
    }


def _computed(
    vlm: VLM, images: Mapping[Shown, EncodedImages], costs: WriteCosts | None = None
) -> dict[Shown, Features]:
    with evaluating(vlm):  # a frozen tower has no dropout
        small = {shown: each for shown, each in images.items() if _is_small(vlm, each)}
        found = _encode_small(vlm, small) if small else {}
        for shown, each in images.items():
            if shown not in small:
                with nullcontext() if costs is None else costs.computing(vlm.device):
                    found[shown] = _encode(vlm, each)
    return found


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
