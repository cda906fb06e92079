"""A run before its first step: the model with what is trained of it, the task, the source, the optimizer.

It opens and checks everything that could be wrong and claims no directory; `run` does that, and writes what comes of
it. A further task or source is put together here and nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from sightline.errors import InputError
from sightline.losses.objective import make_objective
from sightline.models.adapters import add_lora
from sightline.models.image_use import require_image_use
from sightline.models.loading import load_vlm
from sightline.models.tensor_cache import open_cache
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.train.admission import Admitted, admit
from sightline.train.config import TrainConfig
from sightline.train.loop import TrainState, trainable_weights
from sightline.train.optimizer import make_optimizer
from sightline.train.preference import PreferenceTask
from sightline.train.reference import Reference, to_scored
from sightline.train.sources import OfflineSource
from sightline.train.task import Task

PROBED = 2  # pairs on which the model must use its pictures before anything is trained


@dataclass(frozen=True)
class Prepared:
    """The state at the start of a run, the mean length of its items in tokens, and what was dropped at the door."""

    state: TrainState[Any]
    mean_tokens: float
    dropped: dict[str, int]


def prepare(model_dir: Path, pairs: list[Pair], config: TrainConfig, seed: int, bars: Progress) -> Prepared:
    """Open the model and look at every pair.

    Raises:
        InputError: no such model, no pair left to train on, a model that ignores its pictures.
    """
    vlm = _open(model_dir, config, seed)
    admitted = _admitted(pairs, vlm, config, bars)
    source = OfflineSource(
        admitted.pairs,
        pairs_per_step=config.batch_size * config.accumulation,
        seed=seed,
        epochs=config.epochs,
        max_steps=config.max_steps,
    )
    reference = Reference(vlm, autocast=config.autocast, keep=source.repeats)
    objective = make_objective(config.terms)
    task = PreferenceTask(vlm, objective, reference, autocast=config.autocast)
    optimizer = make_optimizer(trainable_weights(vlm, task), config.optim, _own_rates(task))
    return Prepared(TrainState(vlm, optimizer, source, task), admitted.mean_tokens, admitted.dropped)


def _open(model_dir: Path, config: TrainConfig, seed: int) -> VLM:
    vlm = add_lora(
        load_vlm(model_dir, device=_device(config), dtype=config.dtype, cache=open_cache()),
        config.lora.settings(),
        seed=seed,
    )
    if config.activation_checkpointing:
        vlm.base.activation_checkpointing_enable()
    return vlm


def _admitted(pairs: list[Pair], vlm: VLM, config: TrainConfig, bars: Progress) -> Admitted:
    """The pairs to train on, after some of them have shown that the model looks at pictures."""
    task = bars.add_task("reading", total=len(pairs), note="")
    admitted = admit(pairs, vlm, max_length=config.max_length, seen=lambda: bars.advance(task))
    if not admitted.pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in admitted.dropped.items())
        raise InputError(
            f"none of the {len(pairs)} pairs can be trained on ({reasons}); give others or raise max_length."
        )
    seen = [replace(to_scored(pair), answers=(pair.chosen,)) for pair in admitted.pairs if pair.images][:PROBED]
    require_image_use(vlm, seen, autocast=config.autocast)
    return admitted


def _own_rates(task: Task[Any]) -> Callable[[str], float | None]:
    """The peak rates of the weights that have one of their own: those of the task's parts, by name."""

    def rate_of(name: str) -> float | None:
        return next((part.lr for key, part in task.parts.items() if name.startswith(f"{key}.")), None)

    return rate_of


def _device(config: TrainConfig) -> str:
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.device
