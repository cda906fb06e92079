"""Which modules of a model get LoRA layers: name endings or a pattern, matched in the language model alone by default.

The result is a regular expression over whole module names, which PEFT saves with the adapter and matches again when it
is opened. How the layers are made is `adapters`.
"""

import re
from collections.abc import Mapping
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from sightline.errors import InputError
from sightline.models.vlm import VLM

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
