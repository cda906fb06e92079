"""Image features, each computed once: while vision tower and projector are frozen they come from a cache on disk.

The key is content: weights of the vision part, whether its adapter layers are on, processed pixels, number formats.
Where anything of the vision part is
trained nothing is cached and gradients flow.
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
from sightline.models.vlm import VLM, evaluating

#: Pictures of at most so many patches are small; of a tower's usual 256 and more, each fills the machine by itself.
SMALL = 128
#: Small pictures in one pass.
TOGETHER = 4

#: Files, the kinds that they are shown as, and whether as zeros (`EncodedImages.shown`).
Shown = tuple[tuple[Path, ...], tuple[str, ...], bool]


def image_features(vlm: VLM, images: Sequence[EncodedImages]) -> list[Features | None]:
    """The features of each prefix's images, None where it has none.

    Prefixes with the same pictures share one pass. A pass is over the pictures of one prefix alone, or over `TOGETHER`
    small ones, never fewer: rounding follows the shapes of the products, so that a feature's last bits do not depend on
    the batch.
    """
    weights = list(_vision_weights(vlm))
    different = {each.shown: each for each in images if each.paths}
    if any(weight.requires_grad for _, weight in weights):
        made = {shown: _encode(vlm, each) for shown, each in different.items()}
    else:
        made = _frozen(vlm, different, weights)
    return [made.get(each.shown) for each in images]


def _frozen(
    vlm: VLM, images: Mapping[Shown, EncodedImages], weights: Sequence[tuple[str, Tensor]]
) -> dict[Shown, Features]:
    """Features from the cache, or made and kept there."""
    cache, made = vlm.cache, {}
    if cache is not None:
        off = ("adapter off",) if _adapter_is_off(vlm, weights) else ()
        parts = (_vision_key(vlm, weights), *off, *_formats(vlm)) if images else ()
        keys = {paths: content_key("features", *parts, *_pixels(each)) for paths, each in images.items()}
        found = {paths: cache.get(key) for paths, key in keys.items()}
        made = {paths: tensors for paths, tensors in found.items() if tensors is not None}
    missing = {paths: each for paths, each in images.items() if paths not in made}
    with evaluating(vlm):  # a frozen tower has no dropout
        small = {paths: each for paths, each in missing.items() if _is_small(vlm, each)}
        new = _encode_small(vlm, small) if small else {}
        new |= {paths: _encode(vlm, each) for paths, each in missing.items() if paths not in small}
    if cache is not None:
        for paths, tensors in new.items():
            cache.put(keys[paths], tensors)
    return {
        paths: {name: value.to(vlm.device) for name, value in tensors.items()}
        for paths, tensors in (made | new).items()
    }


def _is_small(vlm: VLM, images: EncodedImages) -> bool:
    """Whether pictures are so small that a pass over one is mostly overhead, and nothing but their pixels counts."""
    config = getattr(vlm.base.config, "vision_config", None)
    side = getattr(config, "patch_size", None)
    tensors = {name: value for name, value in images.tensors.items() if isinstance(value, Tensor)}
    pixels = tensors.get("pixel_values")
    if len(tensors) > 1 or pixels is None or pixels.ndim != 4 or not isinstance(side, int):
        return False
    return pixels.shape[2] * pixels.shape[3] <= SMALL * side * side


def _encode_small(vlm: VLM, images: Mapping[Shown, EncodedImages]) -> dict[Shown, Features]:
    """Passes over `TOGETHER` pictures, the last filled up with copies of its last."""
    each = [model_inputs(vlm, one)["pixel_values"] for one in images.values()]
    shapes = {pixels.shape[1:] for pixels in each}
    made: dict[Shown, Features] = {}
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
                made.setdefault(paths, {})[name] = part.clone()
    return made


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
    """Everything but the language model and the head."""
    told = {id(p) for part in (vlm.base.get_decoder(), vlm.base.get_output_embeddings()) for p in part.parameters()}
    for name, weight in vlm.base.named_parameters():
        if id(weight) not in told:
            yield name, weight


def _adapter_is_off(vlm: VLM, weights: Sequence[tuple[str, Tensor]]) -> bool:
    """Whether the vision part has adapter layers that are switched off: the same weights, other features."""
    if not isinstance(vlm.model, PeftModel) or not any(
        f".{kind}" in name for name, _ in weights for kind in ("lora_", "modules_to_save")
    ):
        return False
    layers = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    return any(module.disable_adapters for module in vlm.base.modules() if isinstance(module, layers))


def _vision_key(vlm: VLM, weights: Sequence[tuple[str, Tensor]]) -> str:
    """Hashed once per model object: frozen weights stay what they are."""
    known: str | None = getattr(vlm.base, "_sightline_vision_key", None)
    if known is None:
        known = content_key(vlm.base.config.to_json_string(), *(part for pair in weights for part in pair))
        vlm.base._sightline_vision_key = known
    return known
