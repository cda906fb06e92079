"""Setup of a run before its first step: the model with its trainable weights, the task, the source, the optimizer.

It opens and checks every input and claims no directory; `run` does that and writes the results. A new task or source is
added here and nowhere else.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.progress import Progress

from sightline.builders.image_corruptions import corrupt_image
from sightline.data.samples import read_samples, samples_file
from sightline.errors import InputError
from sightline.losses.objective import make_objective
from sightline.losses.types import Requirement
from sightline.models.adapters import add_lora, start_from, train_fully
from sightline.models.compat import recomputes_activations, set_activation_checkpointing
from sightline.models.context import RunContext
from sightline.models.device import resolve_device, resolve_dtype, uses_bfloat16
from sightline.models.encoding import encode_prefix
from sightline.models.image_use import require_image_use
from sightline.models.memory import fitting_tokens
from sightline.models.opening import open_model
from sightline.models.processes import Processes
from sightline.models.requests import ScoreRequest, make_prefix
from sightline.models.spec import ModelSpec
from sightline.models.vlm import VLM
from sightline.records.manifest import StageInput
from sightline.records.rows import Pair
from sightline.train.config import TrainConfig
from sightline.train.config.source import MixedConfig, OfflineConfig, list_streams
from sightline.train.data import Data, hold_out, make_examples
from sightline.train.loop import TrainState, trainable_weights
from sightline.train.optimizer import make_optimizer
from sightline.train.pair_filter import FilteredPairs, filter_pairs, locate_errors
from sightline.train.preference import PreferenceTask, RunningMean
from sightline.train.processes import RunWithWeights, ShardedRoot, is_sharding_requested, run_directly
from sightline.train.reference_cache import (
    FrozenModel,
    PolicyWithoutAdapter,
    Reference,
    ReferenceModel,
    UntrainedPolicy,
    open_reference,
)
from sightline.train.reward_model import RewardTask
from sightline.train.rl.config import RLConfig
from sightline.train.rl.setup import RolloutPlan, filter_prompts, make_rollout_parts
from sightline.train.scoring import Scoring, Weaken, make_score_request
from sightline.train.sharding import open_sharded, reshard, score_together
from sightline.train.sources import OfflineSource, Order, Source
from sightline.train.stream_source import StreamSource
from sightline.train.streams import SharedStream, make_stream
from sightline.train.task import Task, Validation

log = logging.getLogger(__name__)
VIEWS = "views"  # folder of a run's corrupted images


@dataclass(frozen=True)
class TrainJob:
    """The arguments of the command, and the processes that run it.

    Corrupted images are kept under `out`.
    """

    model: ModelSpec
    pairs: Path | None
    out: Path
    config: TrainConfig
    seed: int
    samples: Path | None = None
    processes: Processes = field(default_factory=Processes)

    @property
    def prompts(self) -> Path:
        """The location of the prompts of a run by rewards.

        Raises:
            InputError: neither samples nor pairs are given.
        """
        place = self.samples or self.pairs
        if place is None:
            raise InputError("no prompts to train on; give samples with --samples, or pairs with --pairs")
        return place

    @property
    def inputs(self) -> dict[str, StageInput]:
        """Every input by name that determines the result beside the config, which holds the number format."""
        named = {"pairs": self.pairs, "samples": self.samples, "start": self.config.start}
        further = {f"reference-{number}": path for number, path in enumerate(self.config.references, 1)}
        given = {name: path for name, path in named.items() if path is not None}
        return self.model.inputs(dtype=False) | given | further


def settle_format(model: ModelSpec, config: TrainConfig) -> tuple[ModelSpec, TrainConfig]:
    """The model as it is trained, on the config's device, and the config with the number format that "auto" means here.

    A model that is trained in full is float32 unless a format is set: in bfloat16 small updates are rounded away.

    Raises:
        InputError: the model has an adapter, or is quantized and trained in full; the device or the model is missing.
    """
    if model.adapter is not None:
        raise InputError(
            f"training from the adapter {model.adapter}: set start={model.adapter} to continue it, or merge it first "
            "(sightline export model)"
        )
    if model.quantize != "none" and config.lora is None:
        raise InputError(
            f"quantize={model.quantize} freezes the weights, and lora=null trains them in full; leave one of them out"
        )
    device = resolve_device(model.device if config.device == "auto" else config.device)
    dtype: str = model.dtype if config.dtype == "auto" else config.dtype
    if dtype == "auto":
        dtype = "float32" if config.lora is None else resolve_dtype("auto", device, model.place)
    return model.with_options({"device": device, "dtype": dtype}), config.model_copy(update={"dtype": dtype})


PASS_TOKENS = {"cpu": 2048, "cuda": 16384}  # more costs memory and saves no time
LEAST_TOKENS = 4096  # on a GPU, fewer in a pass cost more time than activation checkpointing
PROBES = 2  # rows on which the model must use its images before training starts
MEASURED_PROMPTS = 64  # prompts whose mean length is taken for all


@dataclass(frozen=True)
class Prepared:
    """The state at the start of a run, and the counts of its data.

    `mean_tokens` is the mean length of the items, `dropped` the rows dropped before training, `rows` the number of
    rows, `unit` their kind.
    """

    state: TrainState[Any]
    mean_tokens: float
    dropped: dict[str, int]
    rows: int
    unit: Literal["pairs", "prompts"] = "pairs"


def prepare(job: TrainJob, data: Data, bars: Progress) -> Prepared:
    """Load the model and check every pair or, by rewards, every prompt.

    Raises:
        InputError: no such model, no row left to train on, or a model that ignores its images.
    """
    config = job.config
    if config.rl is not None:
        return _prepare_rl(job, config.rl, bars)
    objective = make_objective(config.terms)
    run_with_weights: RunWithWeights = run_directly
    if is_sharding_requested():
        _check_shardable(objective.needs, config)
        vlm, run_with_weights = open_sharded(partial(_load_policy, job), job.processes)
    else:
        vlm = _load_policy(job)
    scoring = Scoring(objective.needs, _make_weaken(config.weakened, job.out / VIEWS, job.seed), config.blind)
    frozen = [
        _primary_reference(vlm, config, objective.needs),
        *(open_reference(vlm, path) for path in config.references),
    ]
    found: list[FilteredPairs] = []
    run_with_weights(lambda: found.append(_filter_pairs(data, vlm, scoring, job, bars)))
    admitted = found[0]
    choose_checkpointing(config, vlm, admitted.mean_tokens)
    kept, held = admitted.pairs, list[Pair]()
    if config.validation is not None:
        kept, held = hold_out(kept, config.validation.share, job.seed)
    source = _source(job, replace(data, pairs=kept), vlm, scoring)
    references = [
        Reference(vlm, scoring, autocast=config.autocast, keep=source.repeats, frozen=each) for each in frozen
    ]
    task: Task[Pair]
    if Requirement.REWARDS in objective.needs:
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
    if isinstance(run_with_weights, ShardedRoot):
        _score_references(references, admitted.pairs, job, run_with_weights)
        reshard(run_with_weights)
    state = _state(vlm, source, task, job, run_with_weights)
    state.prefix = lambda pair: make_prefix(pair, Path())
    if config.validation is not None:
        state.validation = Validation(held, config.validation, config.batch_size)
    unit: Literal["pairs", "prompts"] = "pairs" if data.pairs else "prompts"
    return Prepared(state, admitted.mean_tokens, admitted.dropped, len(data.pairs) or len(data.samples), unit)


def _prepare_rl(job: TrainJob, rl: RLConfig, bars: Progress) -> Prepared:
    if is_sharding_requested():
        raise InputError("a policy that answers its own prompts cannot be sharded; launch with ddp.yaml")
    config, read = job.config, sum(1 for _ in read_samples(job.prompts))
    vlm = _load_policy(job)
    bar = bars.add_task("reading", total=read, note="")
    admitted = filter_prompts(job.prompts, vlm, rl, lambda: bars.advance(bar))
    folder = samples_file(job.prompts).parent.absolute()
    shown = [sample for sample in admitted.samples if sample.images][:PROBES]
    probes = [ScoreRequest(make_prefix(sample, folder), (sample.reference or sample.prompt,)) for sample in shown]
    require_image_use(vlm, probes, autocast=config.autocast)
    choose_checkpointing(config, vlm, admitted.mean_tokens)
    steps = RolloutPlan(
        prompts=config.batch_size * config.accumulation,
        per_pass=items_per_pass(config, vlm, admitted.mean_tokens),
        epochs=config.epochs,
        max_steps=config.max_steps,
        autocast=config.autocast,
        seed=job.seed,
        reference=_primary_reference(vlm, config),
        processes=job.processes,
    )
    task, source = make_rollout_parts(job.prompts, admitted.samples, vlm, rl, steps)
    return Prepared(_state(vlm, source, task, job), admitted.mean_tokens, admitted.dropped, read, "prompts")


def items_per_pass(config: TrainConfig, vlm: VLM, mean_tokens: float) -> int:
    """The number of items of this mean length per pass."""
    budget = config.pass_tokens
    if budget is None:
        checkpointing = recomputes_activations(vlm.base)
        fitting = fitting_tokens(vlm, checkpointing=checkpointing, halved=uses_bfloat16(vlm, config.autocast))
        most = PASS_TOKENS.get(vlm.device.type, PASS_TOKENS["cuda"])
        budget = most if fitting is None else min(most, fitting)
    return min(config.batch_size, max(1, int(budget / mean_tokens)))


def choose_checkpointing(config: TrainConfig, vlm: VLM, mean_tokens: float) -> None:
    """Turn activation checkpointing on where a pass would be small without it, unless the config decides."""
    if "activation_checkpointing" in config.model_fields_set or recomputes_activations(vlm.base):
        return
    fitting = fitting_tokens(vlm, checkpointing=False, halved=uses_bfloat16(vlm, config.autocast))
    wanted = min(config.pass_tokens or LEAST_TOKENS, config.batch_size * mean_tokens)
    if fitting is not None and fitting < wanted:
        log.warning(
            "activation checkpointing is on: %d tokens in a pass would fit without it; activation_checkpointing=false "
            "leaves it off",
            fitting,
        )
        set_activation_checkpointing(vlm.base, enabled=True)


def _state(
    vlm: VLM, source: Source[Any], task: Task[Any], job: TrainJob, run_with_weights: RunWithWeights = run_directly
) -> TrainState[Any]:
    optimizer = make_optimizer(trainable_weights(vlm, task), job.config.optim, _learning_rates(vlm, task, job.config))
    return TrainState(vlm, optimizer, source, task, processes=job.processes, run_with_weights=run_with_weights)


def _source(job: TrainJob, data: Data, vlm: VLM, scoring: Scoring) -> Source[Pair]:
    config = job.config
    per_step = config.batch_size * config.accumulation
    if isinstance(config.source, OfflineConfig):
        return OfflineSource(
            data.pairs, pairs_per_step=per_step, seed=job.seed, epochs=config.epochs, max_steps=config.max_steps
        )
    examples = make_examples(data.pairs, data.samples)
    wanted = list_streams(config.source)
    options: dict[str, Any] = {"seed": job.seed, "autocast": config.autocast, "processes": job.processes}
    streams = [SharedStream(make_stream(each, vlm, job.out, **options), job.processes) for each in wanted]
    own = next(each for each in wanted if not isinstance(each, OfflineConfig))
    return StreamSource(
        examples,
        streams,
        Order(len(examples), per_step, job.seed, config.epochs, config.max_steps),
        p=config.source.p if isinstance(config.source, MixedConfig) else 1.0,
        every=own.every,
        redraws=own.redraws,
        refuse=scoring.drop_reason,
    )


def _load_policy(job: TrainJob, device: str | None = None, weights: bool = True) -> VLM:
    """The policy with its trainable weights, on another device than the config's if given; `weights` as `load_vlm`."""
    config = job.config
    spec = job.model if device is None else job.model.with_options({"device": device})
    vlm = open_model(spec, weights=weights)
    vlm = train_fully(vlm) if config.lora is None else add_lora(vlm, config.lora.settings(), seed=job.seed)
    if config.start is not None and weights:
        start_from(vlm, config.start)
    if config.activation_checkpointing:
        set_activation_checkpointing(vlm.base, enabled=True)
    return vlm


def _check_shardable(needs: frozenset[Requirement], config: TrainConfig) -> None:
    """Raise InputError if the run needs the model in one piece."""
    if not isinstance(config.source, OfflineConfig):
        raise InputError("a policy that answers its own prompts cannot be sharded; launch with ddp.yaml")
    if Requirement.REWARDS in needs:
        raise InputError("a reward model's head is not sharded; launch with ddp.yaml")
    if Requirement.MISMATCHED in needs and config.lora is not None:
        raise InputError(
            "a loss that scores other pairs' answers (kto) cannot train an adapter under FSDP; use ddp.yaml"
        )


def _score_references(
    references: Sequence[Reference], pairs: Sequence[Pair], job: TrainJob, run_with_weights: RunWithWeights
) -> None:
    """Score all pairs with every reference before training.

    How often a reference runs later depends on the cache, and sharded weights need all processes at once. A reference
    with weights of its own is opened by the first process alone, which keeps the numbers on disk for the others.
    """
    for reference in references:
        if reference.is_policy:
            score_together(reference, pairs, job.processes, run_with_weights)
        else:
            job.processes.on_first(lambda: reference.precompute(pairs))  # noqa: B023 - run at once
            reference.precompute(pairs)


def _primary_reference(vlm: VLM, config: TrainConfig, needs: frozenset[Requirement] = frozenset()) -> FrozenModel:
    if config.lora is not None and config.start is None:
        return PolicyWithoutAdapter(vlm)
    # Before its first step, a policy that is trained in full is its own reference; other pairs' answers come later.
    is_own = is_sharding_requested() and config.lora is None and config.start is None
    is_own = is_own and Requirement.MISMATCHED not in needs
    return UntrainedPolicy(vlm) if is_own else ReferenceModel(vlm, Path(vlm.path), config.start)


def _make_weaken(view: str, folder: Path, seed: int) -> Weaken:
    """The function that corrupts a pair's images by `view`, seeded by (seed, pair): the same in every epoch."""
    context = RunContext(Path(), folder, seed)

    def weaken(pair: Pair) -> tuple[Path, ...]:
        number = int.from_bytes(hashlib.sha256(pair.id.encode()).digest()[:8], "little")
        rng = np.random.default_rng([seed, number])
        return tuple(corrupt_image(Path(image), view, context, rng) for image in pair.images)

    return weaken


def _filter_pairs(data: Data, vlm: VLM, scoring: Scoring, job: TrainJob, bars: Progress) -> FilteredPairs:
    """The pairs to train on, after a check on some rows that the model uses its images."""
    config = job.config
    task = bars.add_task("reading", total=len(data.pairs), note="", visible=bool(data.pairs))
    streams = list_streams(config.source)
    offline = any(isinstance(stream, OfflineConfig) for stream in streams)
    # A corrupted image takes as many tokens as the image itself, and none is created before the directory is claimed.
    # Given pairs that are not trained on themselves need not serve the loss.
    needs = scoring.needs if offline else frozenset()
    measured = replace(scoring, needs=needs, weaken=lambda pair: tuple(Path(image) for image in pair.images))
    admitted = filter_pairs(
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
    requests = [replace(make_score_request(pair), answers=(pair.chosen,)) for pair in admitted.pairs if pair.images]
    if not data.pairs:
        requests = [ScoreRequest(make_prefix(sample, Path()), (sample.reference or "Yes.",)) for sample in shown]
    with locate_errors(shown[:MEASURED_PROMPTS], vlm, job.samples):
        require_image_use(vlm, requests[:PROBES], autocast=config.autocast)
        if offline:
            return admitted
        new = max(stream.max_new_tokens for stream in streams if not isinstance(stream, OfflineConfig))
        prefixes = [len(encode_prefix(vlm, each.prefix).ids) for each in requests[:MEASURED_PROMPTS]]
    return replace(admitted, mean_tokens=2.0 * new + sum(prefixes) / max(1, len(prefixes)))


def _learning_rates(vlm: VLM, task: Task[Any], config: TrainConfig) -> Callable[[str], float | None]:
    """The peak rates of weights with their own: the projector's, and those of the task's parts."""
    rates = {name: part.lr for name, part in task.parts.items() if part.lr is not None}
    if config.optim.projector_lr is not None and vlm.family.projector is not None:
        rates[vlm.family.projector] = config.optim.projector_lr

    def rate_of(name: str) -> float | None:
        return next((rate for key, rate in rates.items() if key in name.split(".")), None)

    return rate_of
