"""The stage `sightline compose`: members in, one directory out, which opens like any model.

NaiveMC and DAMC (arXiv 2402.12750) are settings of it. `train` trains members; `evals` evaluates the result.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress
from safetensors.torch import save_file

from sightline.data.terminal import open_bars
from sightline.errors import InputError
from sightline.models.composed import ADAPTER, COMPOSED, ENCODER_WEIGHTS, ENCODERS
from sightline.models.loading import no_progress_bars
from sightline.models.routing import TEXT
from sightline.models.vlm import VLM
from sightline.recipes.composition.config import ComposeConfig
from sightline.recipes.composition.members import Member, check_same_base, encoder_weights, open_member
from sightline.recipes.composition.merging import (
    Trial,
    add_adapters,
    best_trial,
    join_encoders,
    merge,
    read_references,
    run_trials,
    search_inputs,
)
from sightline.records.manifest import MANIFEST, Stage
from sightline.records.store import write_json


def compose(config: ComposeConfig, out: Path, seed: int = 0) -> Path:
    """Compose the members of `config` into the directory `out`, which is returned.

    Writes the first member's checkpoint, `encoders/`, `adapter/` (PEFT; if any member has one), `composed.json` and
    `manifest.json`. `seed` is for merges that drop at random.

    Raises:
        InputError: members do not share a language model or cannot be opened; a member has an adapter for its image
            tokens and `decoupled` is off; `out` belongs to another run.
    """
    named = {f"{name}.model": member.model.place for name, member in config.members.items()}
    named |= {f"{name}.adapter": member.adapter for name, member in config.members.items() if member.adapter}
    inputs = named | search_inputs(config.search)
    members = (
        None if (out / MANIFEST).exists() else _open(config)
    )  # checked first, so that an error claims no directory
    stage = Stage.open(out, "compose", config, inputs, seed)
    if stage.done:
        return out
    with open_bars() as bars:
        weights, tried = _write(config, members or _open(config), out, seed, bars)
    numbers = {f"weight.{name}": weight for name, weight in zip(config.adapted, weights, strict=True)}
    counts = {"members": len(config.members), "combinations": len(tried)}
    stage.finish(counts=counts, dropped={}, numbers=numbers)
    return out


def _open(config: ComposeConfig) -> list[Member]:
    members: list[Member] = []
    for name, each in config.members.items():
        member = open_member(name, each, config.dtype)
        if member.modality is not None and not config.decoupled:
            raise InputError(
                f"members.{name}: the adapter has a part for image tokens, which one merged adapter cannot keep; "
                "set decoupled=true, or train it with lora.decoupled=false"
            )
        if members:
            check_same_base(members[0], member)
        members.append(member)
    return members


def _write(
    config: ComposeConfig, members: Sequence[Member], out: Path, seed: int, bars: Progress
) -> tuple[tuple[float, ...], list[Trial]]:
    first, *others = members
    with no_progress_bars():
        first.vlm.base.save_pretrained(str(out))
        first.vlm.processor.save_pretrained(str(out))
    for member in others:
        folder = out / ENCODERS / member.name
        folder.mkdir(parents=True, exist_ok=True)
        member.vlm.base.config.save_pretrained(str(folder))
        member.vlm.processor.save_pretrained(str(folder))
        weights = {name: weight.clone() for name, weight in encoder_weights(member.vlm.base).items()}
        save_file(weights, folder / ENCODER_WEIGHTS)
    vlm = add_adapters(join_encoders(members), members, decoupled=config.decoupled)
    used, tried = _merge_members(vlm, config, seed, bars) if config.adapted else ((), [])
    if config.adapted:
        shutil.rmtree(out / ADAPTER, ignore_errors=True)
        kept = [name for name in (TEXT, *vlm.family.adapters) if name in vlm.model.peft_config]
        vlm.model.save_pretrained(str(out / ADAPTER), save_embedding_layers=False, selected_adapters=kept)
    write_json(out / COMPOSED, _description(config, used, tried))
    return used, tried


def _merge_members(vlm: VLM, config: ComposeConfig, seed: int, bars: Progress) -> tuple[tuple[float, ...], list[Trial]]:
    """Put the merged adapter into `vlm`; returns its weights and the trials."""
    if config.search is None:
        merge(vlm, config, config.given_weights, seed=seed)
        return config.given_weights, []
    items = read_references(config.search)
    count = len(config.adapted)
    merged = partial(merge, vlm, config, seed=seed)
    bar = bars.add_task("weights", total=len(config.search.values) ** count, note="")
    tried = []
    for one in run_trials(config.search, count, merged, items):
        tried.append(one)
        bars.update(bar, advance=1, note=f"best {best_trial(tried).logp:.3f}")
    merge(vlm, config, best_trial(tried).weights, seed=seed)
    return best_trial(tried).weights, tried


def _description(config: ComposeConfig, weights: Sequence[float], tried: Sequence[Trial]) -> dict[str, Any]:
    """The content of `composed.json`: the kinds in order, and how the merged adapter was computed."""
    return {
        "members": list(config.members),
        "merge": config.merge,
        "decoupled": config.decoupled,
        "weights": dict(zip(config.adapted, weights, strict=True)),
        "tried": [one.to_json() for one in tried],
    }
