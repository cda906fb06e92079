"""Members of a composition: each model opened, checked for the same language model as the first, and taken apart.

A member gives its encoder with projector, as its adapter left them, and the low-rank changes of its language model.
Nothing is merged or written here.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import load_file
from torch import Tensor

from sightline.errors import InputError
from sightline.models.composed import decoder_name, is_composed
from sightline.models.families.base import MODALITY
from sightline.models.opening import open_model
from sightline.models.quantization import require_floats
from sightline.models.vlm import VLM
from sightline.recipes.composition.config import MemberConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: Families whose composition is tested (tests/models/compose).
FAMILIES_COMPOSED = ("llava",)
PREFIX = "base_model.model."  # PEFT's, before the model's own names


@dataclass(frozen=True)
class Lora:
    """One adapter's change of the language model; weights by name in it, such as `layers.0...lora_A.weight`."""

    config: LoraConfig
    weights: dict[str, Tensor]


@dataclass(frozen=True)
class Member:
    """A model of one kind of media without its language adapter but with the adapter's encoder, and its adapters.

    `text` is the adapter of text tokens, or of all tokens; `modality` that of image tokens if they are separate.
    """

    name: str
    vlm: VLM
    text: Lora | None
    modality: Lora | None


def open_member(name: str, config: MemberConfig, dtype: str) -> Member:
    """Open a member.

    Raises:
        InputError: it cannot be opened; its family is not supported; or its adapter is more than LoRA of the language
            model and of what turns images into features.
    """
    if is_composed(config.model.place):
        raise InputError(f"members.{name}: {config.model.name} is already composed; give its original models")
    vlm = open_model(config.model.with_options({"dtype": dtype, "device": "cpu"}))
    require_floats(vlm.base, f"members.{name}: {config.model.name}", "composed", "leave quantize out")
    kind = vlm.base.config.model_type
    if kind not in FAMILIES_COMPOSED:
        raise InputError(
            f"members.{name}: composing {kind!r} models is not verified; use {' or '.join(FAMILIES_COMPOSED)} models"
        )
    if config.adapter is None:
        return Member(name, vlm, None, None)
    text, beside = _read_adapter(name, vlm, config.adapter)
    modality = None
    if (config.adapter / MODALITY / CONFIG).is_file():
        modality, further = _read_adapter(name, vlm, config.adapter / MODALITY)
        beside = [*beside, *further]
    if beside:
        _keep_encoder(name, vlm, config, beside)
    return Member(name, vlm, text, modality)


def check_same_base(first: Member, other: Member) -> None:
    """Reject members whose language models, tokenizers or templates differ.

    Raises:
        InputError: they differ; the message names the first different tensor.
    """
    one, two = dict(_language_tensors(first.vlm)), dict(_language_tensors(other.vlm))
    pair = f"members {first.name!r} and {other.name!r}"
    for tensor in dict.fromkeys([*one, *two]):
        wrong = _difference(one.get(tensor), two.get(tensor))
        if wrong is not None:
            raise InputError(f"{pair} have different language models: {tensor} {wrong}; compose models of one base")
    if first.vlm.tokenizer.get_vocab() != other.vlm.tokenizer.get_vocab():
        raise InputError(f"{pair} have different tokenizers; compose models of one base")
    if first.vlm.image_token_id != other.vlm.image_token_id:
        raise InputError(f"{pair} have different image tokens; compose models of one base")
    if first.vlm.processor.chat_template != other.vlm.processor.chat_template:
        raise InputError(f"{pair} have different chat templates; give them the one that both were trained with")


def _difference(one: Tensor | None, two: Tensor | None) -> str | None:
    """A description of the difference between two tensors, or None."""
    if one is None or two is None:
        return f"is only in the {'second' if one is None else 'first'}"
    if one.shape != two.shape:
        return f"is {tuple(one.shape)} in the first and {tuple(two.shape)} in the second"
    if torch.equal(one, two):
        return None
    return f"differs by up to {(one.float() - two.float()).abs().max().item():.3g}"


def encoder_weights(model: Any) -> dict[str, Tensor]:
    """All weights of a model except its language model, head and embeddings, by name."""
    language = f"{decoder_name(model)}."
    head = {id(weight) for weight in model.get_output_embeddings().parameters()}
    heads = {name for name, weight in model.named_parameters(remove_duplicate=False) if id(weight) in head}
    return {
        name: weight
        for name, weight in model.state_dict().items()
        if not name.startswith(language) and name not in heads
    }


def _language_tensors(vlm: VLM) -> Iterator[tuple[str, Tensor]]:
    yield from vlm.base.get_decoder().state_dict().items()
    for name, weight in vlm.base.get_output_embeddings().state_dict().items():
        yield f"lm_head.{name}", weight


def _read_adapter(name: str, vlm: VLM, folder: Path) -> tuple[Lora, list[str]]:
    """The change of the language model, and the names of all other tensors."""
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise InputError(f"members.{name}: {folder} is not an adapter; it needs {CONFIG} and {WEIGHTS}")
    settings = json.loads((folder / CONFIG).read_text())
    odd = next((key for key in ("use_dora", "lora_bias") if settings.get(key)), None)
    if settings.get("peft_type") != "LORA" or odd or settings.get("bias", "none") != "none":
        raise InputError(f"members.{name}: adapter {folder} is more than plain LoRA, whose changes cannot be merged")
    config = LoraConfig.from_pretrained(str(folder))
    language = f"{PREFIX}{decoder_name(vlm.base)}."
    weights, beside = {}, []
    for key, value in load_file(folder / WEIGHTS).items():
        if key.startswith(language) and (".lora_A." in key or ".lora_B." in key):
            weights[key.removeprefix(language)] = value
        else:
            beside.append(key)
    if not weights:
        raise InputError(f"members.{name}: adapter {folder} does not change the language model of {vlm.path}")
    _check_fit(name, vlm, folder, weights)
    return Lora(config, weights), beside


def _check_fit(name: str, vlm: VLM, folder: Path, weights: Mapping[str, Tensor]) -> None:
    layers = dict(vlm.base.get_decoder().named_modules())
    for key, value in weights.items():
        layer, _, half = key.partition(".lora_")
        found = layers.get(layer)
        width = getattr(found, "in_features" if half.startswith("A") else "out_features", None)
        if width is None or value.shape[1 if half.startswith("A") else 0] != width:
            raise InputError(
                f"members.{name}: adapter {folder} does not fit {vlm.path} ({key} is "
                f"{tuple(value.shape)}, the layer's width {width}); give the model that it was trained on"
            )


def _keep_encoder(name: str, vlm: VLM, config: MemberConfig, beside: list[str]) -> None:
    """Give `vlm` the encoder and projector that its adapter trained."""
    encoder = set(encoder_weights(vlm.base))
    for key in beside:
        own = key.removeprefix(PREFIX).partition(".lora_")[0]
        if not any(weight == own or weight.startswith(f"{own}.") for weight in encoder):
            raise InputError(
                f"members.{name}: adapter {config.adapter} trains {own}, which is neither LoRA of the language model "
                "nor of its encoder; train language layers and projector alone"
            )
    dtype = str(vlm.dtype).removeprefix("torch.")
    merging = {"adapter": config.adapter, "dtype": dtype, "device": "cpu"}
    merged = open_model(config.model.with_options(merging)).model.merge_and_unload()
    vlm.base.load_state_dict(encoder_weights(merged), strict=False)
