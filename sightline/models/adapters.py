"""LoRA through PEFT (add, disable for the reference, save, merge) and full fine-tuning of a loaded model.

Adapters are saved as standard PEFT directories, which `opening.open_model` loads again. Nothing here knows an optimizer
or a loss.
"""

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.save_and_load import load_peft_weights
from torch import Tensor, nn

from sightline.errors import InputError
from sightline.models.composed import decoder_name
from sightline.models.loading import peft_warnings_ignored
from sightline.models.merging import merge_adapter, published_names
from sightline.models.quantization import require_floats
from sightline.models.routing import fuse_lora, is_routed, route
from sightline.models.soundness import ADAPTER_CONFIG, check_adapter
from sightline.models.vlm import VLM, decoder_of, head_of


def train_fully(vlm: VLM) -> VLM:
    """Unfreeze language model, head and projector, in place; the vision tower stays frozen.

    Raises:
        InputError: the weights are quantized.
    """
    require_floats(vlm.base, vlm.path, "trained in full", "train an adapter (lora), or leave quantize out")
    parts = (decoder_of(vlm.base), head_of(vlm.base), vlm.base.get_input_embeddings())
    for part in parts:
        part.requires_grad_(True)
    for name, weight in vlm.base.named_parameters():
        if vlm.family.projector is not None and vlm.family.projector in name.split("."):
            weight.requires_grad_(True)
    return vlm


def save_model(vlm: VLM, directory: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Save model and processor so that Transformers and vLLM load them like the original.

    `weights` are the model's weights by name if the model object itself holds only a part of them.
    """
    with published_names(vlm.base):
        vlm.base.save_pretrained(str(directory), state_dict=weights)
    vlm.processor.save_pretrained(str(directory))


Targets = str | tuple[str, ...] | None


def target_pattern(vlm: VLM, targets: Targets, *, vision: bool, projector: bool = True) -> str:
    """The regular expression for `targets`; None means every linear layer of the language model.

    Name endings and patterns match modules of the language model and its head; with `vision` also those of the vision
    tower and, unless `projector` is false, of the projector.

    Raises:
        InputError: a target matches no such module, or a pattern is not a regular expression.
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
    """The modules whose names end in one of `endings`, at a dot boundary."""
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
        raise InputError(f"lora.targets {pattern!r} is not a regular expression ({error}); correct it") from error
    return [name for name in known if whole.fullmatch(name)]


def _unmatched(vlm: VLM, target: str, known: Mapping[str, nn.Module], other: Mapping[str, nn.Module]) -> str:
    """The error text for a target that matches no module of `known`, with the existing names."""
    names = sorted({name.rpartition(".")[2] for name, module in known.items() if isinstance(module, nn.Linear)})
    elsewhere = any(name == target or name.endswith(f".{target}") or target in name for name in other)
    hint = "; set lora.vision_tower=true for modules outside the language model" if elsewhere else ""
    return (
        f"lora.targets: {target!r} matches no module of the language model of {vlm.path}{hint}; its linear layers are "
        f"{', '.join(names)}"
    )


def _modules(vlm: VLM, *, projector: bool) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """Modules of language model and head by name, and all others except those that contain the language model."""
    decoder, head, own = decoder_name(vlm.base), _head_name(vlm), vlm.family.projector
    language, other = dict[str, nn.Module](), dict[str, nn.Module]()
    for name, module in vlm.base.named_modules():
        if name.startswith(f"{decoder}.") or name == head:
            language[name] = module
        elif name and not f"{decoder}.".startswith(f"{name}.") and (projector or own not in name.split(".")):
            other[name] = module
    return language, other


def _head_name(vlm: VLM) -> str:
    head = head_of(vlm.base)
    return next((name for name, module in vlm.base.named_modules() if module is head), "")


def _pattern(vlm: VLM, names: list[str]) -> str:
    """An expression for exactly these names; name endings inside the language model if they match nothing else."""
    decoder, wanted = decoder_name(vlm.base), set(names)
    endings = sorted({name.rpartition(".")[2] for name in names})
    short = rf"{re.escape(decoder)}\..*\.({'|'.join(map(re.escape, endings))})"
    if {name for name, _ in vlm.base.named_modules() if re.fullmatch(short, name)} == wanted:
        return short
    return "|".join(re.escape(name) for name in names)


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adaptation (Hu et al. 2021); the update is scaled by alpha / rank.

    `targets` is a regular expression over whole module names or a tuple of name endings; None means every linear layer
    of the language model. They match only the language model and its head, so the vision tower stays frozen, unless
    `vision_tower` includes vision tower and projector. `train_projector` trains the projector between vision and
    language in full, as the BDHS study does (2407.02477, app. A): the adapter saves a copy of it, and disabling the
    adapter restores the original. With `decoupled` there are two adapters, one for image tokens and one for all others,
    as in DAMC (2402.12750).
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: str | tuple[str, ...] | None = None
    train_projector: bool = False
    decoupled: bool = False
    vision_tower: bool = False


def add_lora(vlm: VLM, settings: LoraSettings, *, seed: int = 0) -> VLM:
    """Freeze `vlm` and add a new LoRA adapter, in place; untrained, it does not change the outputs.

    Raises:
        InputError: the model has an adapter already; `settings.targets` match no module; `decoupled` with a model that
            is text-only or not computed in packed rows; `vision_tower` with a model that has none.
    """
    if settings.decoupled and not (vlm.way.routes_tokens and vlm.is_multimodal):
        raise InputError(f"{vlm.path} cannot route adapters by token; leave lora.decoupled off")
    if settings.vision_tower and not vlm.is_multimodal:
        raise InputError(f"{vlm.path} has no vision tower; leave lora.vision_tower off")
    if settings.vision_tower and (settings.decoupled or vlm.family.names):
        raise InputError(
            "lora.vision_tower cannot be combined with lora.decoupled or a composed model, whose adapters are routed "
            "by token; leave one of them off"
        )
    if isinstance(vlm.model, PeftModel):
        raise InputError(f"{vlm.path} already has an adapter; merge it first")
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
                f"lora.targets {settings.targets or targets!r}: PEFT cannot add LoRA there in {vlm.path} ({error})"
            ) from error
        if settings.decoupled:
            for name in vlm.family.adapters:
                model.add_adapter(name, replace(config, modules_to_save=None))
            route(model, vlm.family.adapters)
    fuse_lora(model)
    return replace(vlm, model=model)


def start_from(vlm: VLM, directory: Path) -> None:
    """Load the weights of a saved adapter into a new one with the same settings, in place.

    Raises:
        InputError: no adapter in `directory`, or one with another rank, alpha or other layers.
    """
    model = _adapted(vlm)
    if (directory / ADAPTER_CONFIG).is_file():
        check_adapter(directory)
    try:
        saved, weights = LoraConfig.from_pretrained(str(directory)), load_peft_weights(str(directory), device="cpu")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"start: {directory} is not a readable adapter; name the adapter/ of a run") from error
    own = model.peft_config[model.active_adapter]
    for key in ("r", "lora_alpha"):
        if getattr(saved, key) != getattr(own, key):
            raise InputError(
                f"start: the adapter {directory} has {key} = {getattr(saved, key):g} and the config's lora section "
                f"{getattr(own, key):g}; make them equal"
            )
    known = get_peft_model_state_dict(model, save_embedding_layers=False)
    differing = sorted(
        {*known} ^ {*weights} or {name for name, value in weights.items() if value.shape != known[name].shape}
    )
    if differing:
        raise InputError(
            f"start: the adapter {directory} and the config's lora section differ in {len(differing)} weights, first "
            f"{differing[0]}; use the same lora.targets and model"
        )
    set_peft_model_state_dict(model, weights)


@contextlib.contextmanager
def reference_mode(vlm: VLM) -> Iterator[None]:
    """Context in which `vlm` computes without its adapter, as the DPO reference. It does not disable gradients.

    Raises:
        InputError: there is no adapter, so the reference would be the policy itself.
    """
    with _adapted(vlm).disable_adapter():
        yield


def save_adapter(vlm: VLM, directory: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Save the adapter as a PEFT directory, which `peft.PeftModel.from_pretrained` loads on the same base model.

    `weights` are the trained weights by name if the model object itself holds only a part of them.
    """
    # Embeddings are never trained here; PEFT's "auto" would query the hub for whether they were resized.
    _adapted(vlm).save_pretrained(str(directory), save_embedding_layers=False, state_dict=weights)


def merge_and_save(vlm: VLM, directory: Path) -> None:
    """Save model and adapter merged into one checkpoint with its processor; `vlm` itself is unchanged.

    The sum is rounded to the dtype of the weights, so merge a float32 model if the last digits matter.
    """
    require_floats(vlm.base, vlm.path, "merged", "use model and adapter as they are, or open it without quantize")
    if is_routed(_adapted(vlm)) or vlm.family.names:
        raise InputError(f"the adapters of {vlm.path} are routed by token and cannot be merged; use them unmerged")
    save_model(replace(vlm, model=merge_adapter(copy.deepcopy(_adapted(vlm)))), directory)


def _adapted(vlm: VLM) -> PeftModel:
    if not isinstance(vlm.model, PeftModel):
        raise InputError(f"{vlm.path} has no adapter; add one with add_lora or open the model with adapter=DIRECTORY")
    return vlm.model


def _projector(vlm: VLM) -> list[str]:
    if vlm.family.projector is None:
        raise InputError(f"{vlm.path} has no projector to train; leave lora.train_projector off")
    return [vlm.family.projector]
