"""A run before its first step: the model with what is trained of it, the task, the source, the optimizer.

It opens and checks everything that could be wrong and claims no directory; `run` does that, and writes what comes of
it. A further task or source is put together here and nowhere else.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from sightline.errors import InputError
from sightline.losses.objective import make_objective
from sightline.models.adapters import add_lora
from sightline.models.full import train_fully
from sightline.models.image_use import require_image_use
from sightline.models.loading import load_vlm
from sightline.models.tensor_cache import open_cache
from sightline.models.vlm import VLM
from sightline.pairs.builder import Tools
from sightline.pairs.views import weakened
from sightline.records.rows import Pair
from sightline.train.admission import Admitted, admit
from sightline.train.config import TrainConfig
from sightline.train.frozen import Frozen, OtherModel, WithoutAdapter, further_reference
from sightline.train.loop import TrainState, trainable_weights
from sightline.train.optimizer import make_optimizer
from sightline.train.preference import PreferenceTask, RunningMean
from sightline.train.reference import Reference
from sightline.train.scoring import Scoring, Weaken, to_scored
from sightline.train.sources import OfflineSource
from sightline.train.task import Task

PROBED = 2  # pairs on which the model must use its pictures before anything is trained
VIEWS = "views"


@dataclass(frozen=True)
class Job:
    """What a run is asked to do: the arguments of the command. Weakened pictures are kept under `out`."""

    model: Path
    pairs: Path
    out: Path
    config: TrainConfig
    seed: int


@dataclass(frozen=True)
class Prepared:
    """The state at the start of a run, the mean length of its items in tokens, and what was dropped at the door."""

    state: TrainState[Any]
    mean_tokens: float
    dropped: dict[str, int]


def prepare(job: Job, pairs: list[Pair], bars: Progress) -> Prepared:
    """Open the model and look at every pair.

    Raises:
        InputError: no such model, no pair left to train on, a model that ignores its pictures.
    """
    config = job.config
    vlm = _open(job)
    objective = make_objective(config.terms)
    scoring = Scoring(objective.needs, _weakener(config.weakened, job.out / VIEWS, job.seed))
    frozen = [_primary(vlm, config), *(further_reference(vlm, path) for path in config.references)]
    admitted = _admitted(pairs, vlm, scoring, config, bars)
    source = OfflineSource(
        admitted.pairs,
        pairs_per_step=config.batch_size * config.accumulation,
        seed=job.seed,
        epochs=config.epochs,
        max_steps=config.max_steps,
    )
    references = [
        Reference(vlm, scoring, autocast=config.autocast, keep=source.repeats, frozen=each) for each in frozen
    ]
    task = PreferenceTask(
        vlm,
        objective,
        *references,
        autocast=config.autocast,
        scoring=scoring,
        shift=RunningMean(config.shift_momentum),
        slice_size=config.batch_size,
    )
    optimizer = make_optimizer(trainable_weights(vlm, task), config.optim, _own_rates(vlm, task, config))
    return Prepared(TrainState(vlm, optimizer, source, task), admitted.mean_tokens, admitted.dropped)


def _open(job: Job) -> VLM:
    config = job.config
    vlm = load_vlm(job.model, device=_device(config), dtype=config.dtype, cache=open_cache())
    vlm = train_fully(vlm) if config.lora is None else add_lora(vlm, config.lora.settings(), seed=job.seed)
    if config.activation_checkpointing:
        vlm.base.activation_checkpointing_enable()
    return vlm


def _primary(vlm: VLM, config: TrainConfig) -> Frozen:
    return OtherModel(vlm, Path(vlm.path)) if config.lora is None else WithoutAdapter(vlm)


def _weakener(view: str, folder: Path, seed: int) -> Weaken:
    """A pair's pictures under a view, by (seed, pair): the same in every epoch."""
    tools = Tools(Path(), folder, seed)

    def weaken(pair: Pair) -> tuple[Path, ...]:
        number = int.from_bytes(hashlib.sha256(pair.id.encode()).digest()[:8], "little")
        rng = np.random.default_rng([seed, number])
        return tuple(weakened(Path(image), view, tools, rng) for image in pair.images)

    return weaken


def _admitted(pairs: list[Pair], vlm: VLM, scoring: Scoring, config: TrainConfig, bars: Progress) -> Admitted:
    """The pairs to train on, after some of them have shown that the model looks at pictures."""
    task = bars.add_task("reading", total=len(pairs), note="")
    # A weakened picture takes as many tokens as the picture itself, and none is made before the directory is ours.
    measured = replace(scoring, weaken=lambda pair: tuple(Path(image) for image in pair.images))
    admitted = admit(pairs, vlm, measured, max_length=config.max_length, seen=lambda: bars.advance(task))
    if not admitted.pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in admitted.dropped.items())
        raise InputError(
            f"none of the {len(pairs)} pairs can be trained on ({reasons}); give others or raise max_length."
        )
    seen = [replace(to_scored(pair), answers=(pair.chosen,)) for pair in admitted.pairs if pair.images][:PROBED]
    require_image_use(vlm, seen, autocast=config.autocast)
    return admitted


def _own_rates(vlm: VLM, task: Task[Any], config: TrainConfig) -> Callable[[str], float | None]:
    """The peak rates of the weights that have one of their own: the projector's, and those of the task's parts."""
    rates = {name: part.lr for name, part in task.parts.items() if part.lr is not None}
    if config.optim.projector_lr is not None and vlm.family.projector is not None:
        rates[vlm.family.projector] = config.optim.projector_lr

    def rate_of(name: str) -> float | None:
        return next((rate for key, rate in rates.items() if key in name.split(".")), None)

    return rate_of


def _device(config: TrainConfig) -> str:
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.device
