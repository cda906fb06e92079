"""LoRA on a loaded model through PEFT: add, switch off for the reference, save, merge.

What is saved is PEFT's own directory, so that any tool of the ecosystem can open it; nothing here knows an optimizer or
a loss. Loading an adapter again is `loading.load_vlm(path, adapter=...)`.
"""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.save_and_load import load_peft_weights
from torch import Tensor, nn

from sightline.errors import InputError
from sightline.models.loading import peft_warnings_ignored
from sightline.models.merging import merge_adapter, published_names
from sightline.models.routing import fuse_lora, is_routed, route
from sightline.models.soundness import ADAPTER_CONFIG, check_adapter
from sightline.models.vlm import VLM


def train_fully(vlm: VLM) -> VLM:
    """Let language model, head and projector be trained, in place; the vision tower stays frozen."""
    told = (vlm.base.get_decoder(), vlm.base.get_output_embeddings(), vlm.base.get_input_embeddings())
    for part in told:
        part.requires_grad_(True)
    for name, weight in vlm.base.named_parameters():
        if vlm.family.projector is not None and vlm.family.projector in name.split("."):
            weight.requires_grad_(True)
    return vlm


def save_model(vlm: VLM, directory: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write model and processor, which Transformers and vLLM open as they would the original.

    `weights` are the model's by name where it has only a part of them itself.
    """
    with published_names(vlm.base):
        vlm.base.save_pretrained(str(directory), state_dict=weights)
    vlm.processor.save_pretrained(str(directory))


Targets = str | tuple[str, ...] | None


def target_pattern(vlm: VLM, targets: Targets, *, vision: bool, projector: bool = True) -> str:
    """The regular expression for `targets`; None is every linear layer inside the language model.

    Name endings and patterns match modules of the language model and its head; with `vision` those of the vision tower
    and, unless `projector` is false, of the projector too.

    Raises:
        InputError: a target that matches no such module, or a pattern that is no regular expression.
    """
    language, other = _modules(vlm, projector=projector)
    known = {**language, **other} if vision else language
    if targets is None:
        found = [name for name, module in known.items() if isinstance(module, nn.Linear) and name != _head_name(vlm)]
    elif isinstance(targets, str):
        found = _matching(known, targets)
    else:
        found = _ending(vlm, known, other, targets)
    if not found:
        raise InputError(_unmatched(vlm, str(targets), known, other))
    return _pattern(vlm, found)


def adapts_vision(vlm: VLM) -> bool:
    """Whether an adapter has layers outside the language model and its head."""
    _, other = _modules(vlm, projector=True)
    return any(isinstance(module, BaseTunerLayer) for module in other.values())


def _ending(
    vlm: VLM, known: Mapping[str, nn.Module], other: Mapping[str, nn.Module], endings: tuple[str, ...]
) -> list[str]:
    """The modules whose names end in one of `endings`, at a dot."""
    found: dict[str, None] = {}
    for ending in endings:
        own = [name for name in known if name == ending or name.endswith(f".{ending}")]
        if not own:
            raise InputError(_unmatched(vlm, ending, known, other))
        found |= dict.fromkeys(own)
    return list(found)


def _matching(known: Mapping[str, nn.Module], pattern: str) -> list[str]:
    try:
        whole = re.compile(pattern)
    except re.error as error:
        raise InputError(f"lora.targets {pattern!r} is no regular expression ({error}); correct it") from error
    return [name for name in known if whole.fullmatch(name)]


def _unmatched(vlm: VLM, target: str, known: Mapping[str, nn.Module], other: Mapping[str, nn.Module]) -> str:
    """The sentence for a target that matches no module of `known`, with the names that exist."""
    names = sorted({name.rpartition(".")[2] for name, module in known.items() if isinstance(module, nn.Linear)})
    elsewhere = any(name == target or name.endswith(f".{target}") or target in name for name in other)
    hint = "; set lora.vision_tower=true for modules outside the language model" if elsewhere else ""
    return (
        f"lora.targets: {target!r} fits no module of the language model of {vlm.path}{hint}; its linear layers are "
        f"{', '.join(names)}"
    )


def _modules(vlm: VLM, *, projector: bool) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """The modules of language model and head by name, and all others; what holds the language model is neither."""
    decoder, head, own = _decoder_name(vlm), _head_name(vlm), vlm.family.projector
    language, other = dict[str, nn.Module](), dict[str, nn.Module]()
    for name, module in vlm.base.named_modules():
        if name.startswith(f"{decoder}.") or name == head:
            language[name] = module
        elif name and not f"{decoder}.".startswith(f"{name}.") and (projector or own not in name.split(".")):
            other[name] = module
    return language, other


def _decoder_name(vlm: VLM) -> str:
    return _name_of(vlm, vlm.base.get_decoder())


def _head_name(vlm: VLM) -> str:
    head = vlm.base.get_output_embeddings()
    return "" if head is None else _name_of(vlm, head)


def _name_of(vlm: VLM, part: Any) -> str:
    name: str = next(name for name, module in vlm.base.named_modules() if module is part)
    return name


def _pattern(vlm: VLM, names: list[str]) -> str:
    """An expression for exactly these names: by endings inside the language model where that matches no others."""
    decoder, wanted = _decoder_name(vlm), set(names)
    endings = sorted({name.rpartition(".")[2] for name in names})
    short = rf"{re.escape(decoder)}\..*\.({'|'.join(map(re.escape, endings))})"
    if {name for name, _ in vlm.base.named_modules() if re.fullmatch(short, name)} == wanted:
        return short
    return "|".join(re.escape(name) for name in names)


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adaptation (Hu et al. 2021); the update is scaled by alpha / rank.

    `targets` is a regular expression over whole module names or a tuple of name endings; None is every linear layer of
    the language model. They match the language model and its head alone, so the vision tower stays frozen, unless
    `vision_tower` lets them match vision tower and projector too. `train_projector` also trains the projector between
    vision and language in full, as the BDHS study does (2407.02477, app. A): a copy of it is saved in the adapter, and
    switching the adapter off restores the original. With `decoupled` there are two adapters, one for the tokens of
    images and one for all others, as DAMC trains them (2402.12750).
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: str | tuple[str, ...] | None = None
    train_projector: bool = False
    decoupled: bool = False
    vision_tower: bool = False


def add_lora(vlm: VLM, settings: LoraSettings, *, seed: int = 0) -> VLM:
    """Freeze `vlm` and put a fresh LoRA adapter into its modules, in place; until trained it computes what it did.

    Raises:
        InputError: there is an adapter already, no module answers to `settings.targets`, adapters are to be chosen by
            token in a model without a proof, or a vision tower is to be trained that is not there.
    """
    if settings.decoupled and not (vlm.proved and vlm.sees):
        raise InputError(f"{vlm.path} tells no image tokens from text; leave lora.decoupled off")
    if settings.vision_tower and not vlm.sees:
        raise InputError(f"{vlm.path} has no vision tower; leave lora.vision_tower off")
    if settings.vision_tower and (settings.decoupled or vlm.family.names):
        raise InputError(
            "lora.vision_tower does not go with lora.decoupled or a composed model, whose adapters are chosen by "
            "token; leave one of them off"
        )
    if isinstance(vlm.model, PeftModel):
        raise InputError(f"the model of {vlm.path} has an adapter already; merge it first")
    targets = target_pattern(
        vlm, settings.targets, vision=settings.vision_tower, projector=not settings.train_projector
    )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # PEFT only divides by the rank
        lora_dropout=settings.dropout,
        target_modules=targets,
        modules_to_save=_projector(vlm) if settings.train_projector else None,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), peft_warnings_ignored():
        torch.manual_seed(seed)
        try:
            model = get_peft_model(vlm.model, config)
        except ValueError as error:
            raise InputError(
                f"lora.targets {settings.targets or targets!r}: PEFT puts no LoRA there in {vlm.path} ({error})"
            ) from error
        if settings.decoupled:
            for name in vlm.family.adapters:
                model.add_adapter(name, replace(config, modules_to_save=None))
            route(model, vlm.family.adapters)
    fuse_lora(model)
    return replace(vlm, model=model)


def start_from(vlm: VLM, directory: Path) -> None:
    """Give a fresh adapter the weights of one that was saved, in place; its settings must be the same.

    Raises:
        InputError: no adapter there, or one of another rank, alpha or other layers.
    """
    model = _adapted(vlm)
    if (directory / ADAPTER_CONFIG).is_file():
        check_adapter(directory)
    try:
        told, weights = LoraConfig.from_pretrained(str(directory)), load_peft_weights(str(directory), device="cpu")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"start: {directory} is no adapter that can be read; name the adapter/ of a run") from error
    own = model.peft_config[model.active_adapter]
    for key in ("r", "lora_alpha"):
        if getattr(told, key) != getattr(own, key):
            raise InputError(
                f"start: the adapter {directory} has {key} = {getattr(told, key):g} and lora says "
                f"{getattr(own, key):g}; let the two agree"
            )
    known = get_peft_model_state_dict(model, save_embedding_layers=False)
    differing = sorted(
        {*known} ^ {*weights} or {name for name, value in weights.items() if value.shape != known[name].shape}
    )
    if differing:
        raise InputError(
            f"start: the adapter {directory} and lora differ in {len(differing)} weights, {differing[0]} the first; "
            "give the same lora.targets and model"
        )
    set_peft_model_state_dict(model, weights)


@contextlib.contextmanager
def reference_mode(vlm: VLM) -> Iterator[None]:
    """Inside, `vlm` is the model without its adapter: the reference of DPO. Gradients are the caller's to stop.

    Raises:
        InputError: there is no adapter, so that the reference would be the policy itself.
    """
    with _adapted(vlm).disable_adapter():
        yield


def save_adapter(vlm: VLM, directory: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write the adapter as a PEFT directory, which `peft.PeftModel.from_pretrained` opens on the same base model.

    `weights` are the model's trained ones by name where it has only a part of them itself.
    """
    # Embeddings are never trained here; PEFT's "auto" would ask the hub whether they were resized.
    _adapted(vlm).save_pretrained(str(directory), save_embedding_layers=False, state_dict=weights)


def merge_and_save(vlm: VLM, directory: Path) -> None:
    """Write model and adapter as one full checkpoint with its processor; `vlm` itself stays as it is.

    The sum is rounded to the dtype of the weights, so merge a float32 model where the last digits matter.
    """
    if is_routed(_adapted(vlm)) or vlm.family.names:
        raise InputError(f"the adapters of {vlm.path} are chosen by token or kind and cannot be merged; keep them")
    save_model(replace(vlm, model=merge_adapter(copy.deepcopy(_adapted(vlm)))), directory)


def _adapted(vlm: VLM) -> PeftModel:
    if not isinstance(vlm.model, PeftModel):
        raise InputError(f"the model of {vlm.path} has no adapter; add one with add_lora or load_vlm(adapter=...)")
    return vlm.model


def _projector(vlm: VLM) -> list[str]:
    if vlm.family.projector is None:
        raise InputError(f"{vlm.path} has no projector to train; leave lora.train_projector off")
    return [vlm.family.projector]
