"""A run before its first step: the model with what is trained of it, the task, the source, the optimizer.

It opens and checks everything that could be wrong and claims no directory; `run` does that, and writes what comes of
it. A further task or source is put together here and nowhere else.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.progress import Progress

from sightline.builders.image_corruptions import corrupt_image
from sightline.data.samples import read_samples, samples_file
from sightline.errors import InputError
from sightline.losses.objective import make_objective
from sightline.losses.types import Need
from sightline.models.adapters import add_lora, start_from, train_fully
from sightline.models.context import RunContext
from sightline.models.device import resolve_device
from sightline.models.encoding import encode_prefix
from sightline.models.image_use import require_image_use
from sightline.models.loading import load_vlm
from sightline.models.requests import ScoreRequest, prefix_of
from sightline.models.tensor_cache import open_cache
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.train.config import TrainConfig
from sightline.train.config.source import MixedConfig, OfflineConfig, streams_of
from sightline.train.data import Data, examples_of, held_out
from sightline.train.loop import TrainState, trainable_weights
from sightline.train.naming import naming
from sightline.train.optimizer import make_optimizer
from sightline.train.pair_filter import FilteredPairs, admit
from sightline.train.preference import PreferenceTask, RunningMean
from sightline.train.processes import Processes, Within, plainly, shard, sharding_asked, sharding_options
from sightline.train.reference_cache import Frozen, OtherModel, Reference, WithoutAdapter, further_reference
from sightline.train.reward_model import RewardTask
from sightline.train.rl.config import RLConfig
from sightline.train.rl.setup import Steps, admit_prompts, rollout_parts
from sightline.train.scoring import Scoring, Weaken, to_scored
from sightline.train.sources import OfflineSource, Order, Source
from sightline.train.stream_source import StreamSource
from sightline.train.streams import SharedStream, make_stream
from sightline.train.task import Task, Validation

VIEWS = "views"  # the folder of a run's weakened pictures


@dataclass(frozen=True)
class TrainJob:
    """What a run is asked to do, the arguments of the command, and the processes that do it.

    Weakened pictures are kept under `out`.
    """

    model: Path
    pairs: Path | None
    out: Path
    config: TrainConfig
    seed: int
    samples: Path | None = None
    processes: Processes = field(default_factory=Processes)

    @property
    def prompts(self) -> Path:
        """Where the prompts of a run by rewards are.

        Raises:
            InputError: nowhere.
        """
        place = self.samples or self.pairs
        if place is None:
            raise InputError("there are no prompts to train on; name samples with --samples, or pairs with --pairs")
        return place

    @property
    def inputs(self) -> dict[str, Path]:
        """What decides the result beside the config, by name."""
        named = {"model": self.model, "pairs": self.pairs, "samples": self.samples, "start": self.config.start}
        further = {f"reference-{number}": path for number, path in enumerate(self.config.references, 1)}
        return {name: path for name, path in named.items() if path is not None} | further


PASS_TOKENS = {"cpu": 2048, "cuda": 16384}  # more at a time costs memory and saves no time
PROBED = 2  # pairs on which the model must use its pictures before anything is trained
MEASURED = 64  # prompts whose mean length stands for all


@dataclass(frozen=True)
class Prepared:
    """The state at the start of a run, what its data were, and what was dropped of them at the door.

    `mean_tokens` is the mean length of the items, `rows` how many rows there were, `unit` what they are.
    """

    state: TrainState[Any]
    mean_tokens: float
    dropped: dict[str, int]
    rows: int
    unit: Literal["pairs", "prompts"] = "pairs"


def prepare(job: TrainJob, data: Data, bars: Progress) -> Prepared:
    """Open the model and look at every pair, or by rewards at every prompt.

    Raises:
        InputError: no such model, no row left to train on, a model that ignores its pictures.
    """
    config = job.config
    if config.rl is not None:
        return _by_rewards(job, config.rl, bars)
    vlm = _open(job)
    objective = make_objective(config.terms)
    scoring = Scoring(objective.needs, _weakener(config.weakened, job.out / VIEWS, job.seed), config.blind)
    frozen = [_primary(vlm, config), *(further_reference(vlm, path) for path in config.references)]
    admitted = _admitted(data, vlm, scoring, job, bars)
    kept, held = admitted.pairs, list[Pair]()
    if config.validation is not None:
        kept, held = held_out(kept, config.validation.share, job.seed)
    source = _source(job, replace(data, pairs=kept), vlm, scoring)
    references = [
        Reference(vlm, scoring, autocast=config.autocast, keep=source.repeats, frozen=each) for each in frozen
    ]
    task: Task[Pair]
    if Need.REWARDS in objective.needs:
        task = RewardTask(vlm, objective, lr=config.optim.head_lr, autocast=config.autocast)
    else:
        task = PreferenceTask(
            vlm,
            objective,
            *references,
            autocast=config.autocast,
            scoring=scoring,
            shift=RunningMean(config.shift_momentum),
            slice_size=config.batch_size,
        )
    within = _sharded(vlm, references, admitted.pairs, objective.needs, job) if sharding_asked() else plainly
    state = _state(vlm, source, task, job, within)
    if config.validation is not None:
        state.validation = Validation(held, config.validation, config.batch_size)
    unit: Literal["pairs", "prompts"] = "pairs" if data.pairs else "prompts"
    return Prepared(state, admitted.mean_tokens, admitted.dropped, len(data.pairs) or len(data.samples), unit)


def _by_rewards(job: TrainJob, rl: RLConfig, bars: Progress) -> Prepared:
    if sharding_asked():
        raise InputError("a policy that answers its own prompts cannot be sharded; launch with ddp.yaml")
    config, read = job.config, sum(1 for _ in read_samples(job.prompts))
    vlm = _open(job)
    bar = bars.add_task("reading", total=read, note="")
    admitted = admit_prompts(job.prompts, vlm, rl, lambda: bars.advance(bar))
    folder = samples_file(job.prompts).parent.absolute()
    shown = [sample for sample in admitted.samples if sample.images][:PROBED]
    probes = [ScoreRequest(prefix_of(sample, folder), (sample.reference or sample.prompt,)) for sample in shown]
    require_image_use(vlm, probes, autocast=config.autocast)
    steps = Steps(
        prompts=config.batch_size * config.accumulation,
        per_pass=passes(config, vlm, admitted.mean_tokens),
        epochs=config.epochs,
        max_steps=config.max_steps,
        autocast=config.autocast,
        seed=job.seed,
        reference=_primary(vlm, config),
        processes=job.processes,
    )
    task, source = rollout_parts(job.prompts, admitted.samples, vlm, rl, steps)
    return Prepared(_state(vlm, source, task, job), admitted.mean_tokens, admitted.dropped, read, "prompts")


def passes(config: TrainConfig, vlm: VLM, mean_tokens: float) -> int:
    """How many items of this length go through the model at a time."""
    budget = config.pass_tokens or PASS_TOKENS[vlm.device.type]
    return min(config.batch_size, max(1, int(budget / mean_tokens)))


def _state(vlm: VLM, source: Source[Any], task: Task[Any], job: TrainJob, within: Within = plainly) -> TrainState[Any]:
    optimizer = make_optimizer(trainable_weights(vlm, task), job.config.optim, _own_rates(vlm, task, job.config))
    return TrainState(vlm, optimizer, source, task, processes=job.processes, within=within)


def _source(job: TrainJob, data: Data, vlm: VLM, scoring: Scoring) -> Source[Pair]:
    config = job.config
    per_step = config.batch_size * config.accumulation
    if isinstance(config.source, OfflineConfig):
        return OfflineSource(
            data.pairs, pairs_per_step=per_step, seed=job.seed, epochs=config.epochs, max_steps=config.max_steps
        )
    examples = examples_of(data.pairs, data.samples)
    wanted = streams_of(config.source)
    how: dict[str, Any] = {"seed": job.seed, "autocast": config.autocast, "processes": job.processes}
    streams = [SharedStream(make_stream(each, vlm, job.out, **how), job.processes) for each in wanted]
    own = next(each for each in wanted if not isinstance(each, OfflineConfig))
    return StreamSource(
        examples,
        streams,
        Order(len(examples), per_step, job.seed, config.epochs, config.max_steps),
        p=config.source.p if isinstance(config.source, MixedConfig) else 1.0,
        every=own.every,
        redraws=own.redraws,
        refuse=scoring.lacking,
    )


def _open(job: TrainJob) -> VLM:
    config = job.config
    vlm = load_vlm(job.model, device=resolve_device(config.device), dtype=config.dtype, cache=open_cache())
    vlm = train_fully(vlm) if config.lora is None else add_lora(vlm, config.lora.settings(), seed=job.seed)
    if config.start is not None:
        start_from(vlm, config.start)
    if config.activation_checkpointing:
        vlm.base.activation_checkpointing_enable()
    return vlm


def _sharded(
    vlm: VLM, references: Sequence[Reference], pairs: Sequence[Pair], needs: frozenset[Need], job: TrainJob
) -> Within:
    """Cut the weights over the processes, after the references have said all that they will be asked.

    How often a reference runs depends on what is in the cache, and sharded weights can only be had by all at once.
    """
    if not isinstance(job.config.source, OfflineConfig):
        raise InputError("a policy that answers its own prompts cannot be sharded; launch with ddp.yaml")
    if Need.REWARDS in needs:
        raise InputError("a reward model's head is not sharded; launch with ddp.yaml")
    if Need.MISMATCHED in needs and job.config.lora is not None:
        raise InputError("a loss with answers of other pairs (kto) cannot train an adapter under FSDP; use ddp.yaml")
    for reference in references:
        reference(job.processes.share(pairs))  # each its share, by way of the cache on disk
        job.processes.first(lambda: None)
        reference.learn(pairs)
    return shard(vlm, **sharding_options())


def _primary(vlm: VLM, config: TrainConfig) -> Frozen:
    if config.lora is None or config.start is not None:
        return OtherModel(vlm, Path(vlm.path), config.start)
    return WithoutAdapter(vlm)


def _weakener(view: str, folder: Path, seed: int) -> Weaken:
    """A pair's pictures under a view, by (seed, pair): the same in every epoch."""
    tools = RunContext(Path(), folder, seed)

    def weaken(pair: Pair) -> tuple[Path, ...]:
        number = int.from_bytes(hashlib.sha256(pair.id.encode()).digest()[:8], "little")
        rng = np.random.default_rng([seed, number])
        return tuple(corrupt_image(Path(image), view, tools, rng) for image in pair.images)

    return weaken


def _admitted(data: Data, vlm: VLM, scoring: Scoring, job: TrainJob, bars: Progress) -> FilteredPairs:
    """What to train on, after some of it has shown that the model looks at pictures."""
    config = job.config
    task = bars.add_task("reading", total=len(data.pairs), note="", visible=bool(data.pairs))
    streams = streams_of(config.source)
    offline = any(isinstance(stream, OfflineConfig) for stream in streams)
    # A weakened picture takes as many tokens as the picture itself, and none is made before the directory is ours.
    # Where the given pairs are not trained on themselves, they need not have what the loss needs.
    needs = scoring.needs if offline else frozenset()
    measured = replace(scoring, needs=needs, weaken=lambda pair: tuple(Path(image) for image in pair.images))
    admitted = admit(
        data.pairs,
        vlm,
        measured,
        max_length=config.max_length,
        seen=lambda: bars.advance(task),
        place=job.pairs or job.samples,
    )
    if data.pairs and not admitted.pairs:
        reasons = ", ".join(f"{count} {reason}" for reason, count in admitted.dropped.items())
        raise InputError(
            f"none of the {len(data.pairs)} pairs can be trained on ({reasons}); give others or raise max_length."
        )
    shown = [] if data.pairs else [sample for sample in data.samples if sample.images]
    asked = [replace(to_scored(pair), answers=(pair.chosen,)) for pair in admitted.pairs if pair.images]
    if not data.pairs:
        asked = [ScoreRequest(prefix_of(sample, Path()), (sample.reference or "Yes.",)) for sample in shown]
    with naming(shown[:MEASURED], vlm, job.samples):
        require_image_use(vlm, asked[:PROBED], autocast=config.autocast)
        if offline:
            return admitted
        new = max(stream.max_new_tokens for stream in streams if not isinstance(stream, OfflineConfig))
        prefixes = [len(encode_prefix(vlm, each.prefix).ids) for each in asked[:MEASURED]]
    return replace(admitted, mean_tokens=2.0 * new + sum(prefixes) / max(1, len(prefixes)))


def _own_rates(vlm: VLM, task: Task[Any], config: TrainConfig) -> Callable[[str], float | None]:
    """The peak rates of the weights that have one of their own: the projector's, and those of the task's parts."""
    rates = {name: part.lr for name, part in task.parts.items() if part.lr is not None}
    if config.optim.projector_lr is not None and vlm.family.projector is not None:
        rates[vlm.family.projector] = config.optim.projector_lr

    def rate_of(name: str) -> float | None:
        return next((rate for key, rate in rates.items() if key in name.split(".")), None)

    return rate_of
