"""Merging the members' language adapters through PEFT's `add_weighted_adapter`, and searching the weights.

All adapters are added to the first member's model under separate names, and the merged one beside them. Nothing is
written here.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from sightline.data.samples import read_samples, samples_file
from sightline.errors import InputError
from sightline.models.composed import Composed, ComposedProcessor, attach_encoders, decoder_name, strip_language_model
from sightline.models.loading import peft_warnings_ignored
from sightline.models.requests import ScoreRequest, make_prefix
from sightline.models.routing import TEXT, route
from sightline.models.scorer import flat_logps
from sightline.models.vlm import VLM, evaluating
from sightline.recipes.composition.config import MERGES, ComposeConfig, SearchConfig
from sightline.recipes.composition.members import CONFIG, PREFIX, WEIGHTS, Lora, Member

OF_TEXT = "text-of-"  # prefix of a member's name: its text adapter, which is merged


def join_encoders(members: Sequence[Member]) -> VLM:
    """The first member's model with the others' encoders, without adapters; the others lose their language part."""
    first, *others = members
    processors = {member.name: member.vlm.processor for member in members}
    attach_encoders(first.vlm.base, {member.name: strip_language_model(member.vlm.base) for member in others})
    processor = ComposedProcessor(processors, first.vlm.image_token_id)
    return replace(first.vlm, processor=processor, family=Composed(tuple(processors)))


def add_adapters(vlm: VLM, members: Sequence[Member], *, decoupled: bool) -> VLM:
    """`vlm` with the members' adapters, in place: those to merge and, with `decoupled`, those of image tokens.

    A member trained without a separate adapter for image tokens uses its one adapter for both.
    """
    model: PeftModel | None = None
    with tempfile.TemporaryDirectory() as folder, peft_warnings_ignored():
        for member, own in zip(members, vlm.family.adapters, strict=True):
            if member.text is None:
                continue
            roles = {f"{OF_TEXT}{member.name}": member.text}
            if decoupled:
                roles[own] = member.modality or member.text
            for role, lora in roles.items():
                place = _write(vlm.base, lora, Path(folder) / role)
                if model is None:
                    model = PeftModel.from_pretrained(vlm.base, str(place), adapter_name=role)
                else:
                    model.load_adapter(str(place), role)
    return vlm if model is None else replace(vlm, model=model)


def merge(vlm: VLM, config: ComposeConfig, weights: Sequence[float], *, seed: int) -> VLM:
    """Replace an earlier merged adapter, and route tokens to adapters if the config says so.

    `weights` are those of the members with an adapter, in order; `seed` is for merges that drop at random.
    """
    model = vlm.model
    names = [f"{OF_TEXT}{name}" for name in config.adapted]
    if TEXT in model.peft_config:
        model.set_adapter(names[0])
        model.delete_adapter(TEXT)
    ranks = [model.peft_config[name].r for name in names]
    with torch.random.fork_rng(), peft_warnings_ignored():
        torch.manual_seed(seed)
        model.base_model.add_weighted_adapter(
            names,
            list(weights),
            TEXT,
            combination_type=MERGES[config.merge],
            svd_rank=None if config.merge == "linear" else min(config.rank or sum(ranks), _least_width(vlm.base)),
            svd_full_matrices=False,
            density=config.density,
        )
    if config.decoupled:
        route(model, vlm.family.adapters)
    else:
        model.set_adapter(TEXT)
    model.requires_grad_(False)
    return vlm


def _write(base: nn.Module, lora: Lora, place: Path) -> Path:
    """Write the adapter as a PEFT directory for the first member's model, with its name of the language model."""
    language = decoder_name(base)
    layers = sorted({f"{language}.{key.partition('.lora_')[0]}" for key in lora.weights})
    config: LoraConfig = replace(
        lora.config, target_modules=layers, modules_to_save=None, base_model_name_or_path="", exclude_modules=None
    )
    place.mkdir()
    config.save_pretrained(str(place))
    weights: Mapping[str, Tensor] = {f"{PREFIX}{language}.{key}": value for key, value in lora.weights.items()}
    save_file({key: value.contiguous() for key, value in weights.items()}, place / WEIGHTS)
    if not (place / CONFIG).is_file():
        raise ValueError(f"PEFT wrote no {CONFIG}")
    return place


def _least_width(base: nn.Module) -> int:
    """The narrowest side of any adapted layer, which bounds the rank of a change."""
    decoder: Any = base.get_decoder()  # type: ignore[operator]
    adapted_layers: list[Any] = [module for module in decoder.modules() if isinstance(module, LoraLayer)]
    return int(min(min(layer.in_features, layer.out_features) for layer in adapted_layers))


@dataclass(frozen=True)
class Trial:
    """One combination of weights, and its mean log-prob (nats a token)."""

    weights: tuple[float, ...]
    logp: float

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def read_references(config: SearchConfig) -> list[ScoreRequest]:
    """Validation samples as prefixes with their reference answer.

    Raises:
        InputError: no samples, or one without a reference.
    """
    folder = samples_file(config.samples).parent.absolute()
    rows = islice(read_samples(config.samples, require_reference=True), config.limit)
    items = [ScoreRequest(make_prefix(row, folder), (row.reference or "",)) for row in rows]
    if not items:
        raise InputError(f"search.samples: {config.samples} holds no samples; create some first")
    return items


def mean_logp(vlm: VLM, items: Sequence[ScoreRequest], batch_size: int) -> float:
    """The mean over items of the mean log-prob (nats) of their answer's tokens."""
    total = 0.0
    with evaluating(vlm):
        for start in range(0, len(items), batch_size):
            values, mask = flat_logps(vlm, items[start : start + batch_size])
            total += float((values.double().sum(-1) / mask.sum(-1)).sum())
    return total / len(items)


def run_trials(
    config: SearchConfig, count: int, merged: Callable[[tuple[float, ...]], VLM], items: Sequence[ScoreRequest]
) -> Iterator[Trial]:
    """Every combination for `count` adapters, in order, as it finishes; `merged` gives the model of given weights."""
    for weights in itertools.product(config.values, repeat=count):
        yield Trial(weights, mean_logp(merged(weights), items, config.batch_size))


def best_trial(tried: Sequence[Trial]) -> Trial:
    """The trial with the greatest log-prob; of equals, the first."""
    return max(tried, key=lambda one: one.logp)


def search_inputs(config: SearchConfig | None) -> dict[str, Path]:
    """The files that a search reads, for the manifest."""
    return {} if config is None else {"validation": config.samples}
