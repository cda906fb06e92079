"""Setup of training by rewards: prompts that fit, the judge, the value head, the source and the task.

`train.setup` adds the optimizer and the loop's state.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.data.samples import read_samples, samples_file
from sightline.errors import InputError
from sightline.judges.judge import Judge
from sightline.models.context import RunContext
from sightline.models.encoding import encode_prefix, fits
from sightline.models.processes import Processes
from sightline.models.requests import make_prefix
from sightline.models.scalar_head import new_head
from sightline.models.vlm import VLM
from sightline.records.rows import Sample
from sightline.train.pair_filter import locate_errors
from sightline.train.reference_cache import FrozenModel
from sightline.train.rl.config import RLConfig
from sightline.train.rl.policy import PolicyTask, Scorer
from sightline.train.rl.rollouts import PolicySampler, RewardScale, measure_scale, read_answers
from sightline.train.rl.source import RolloutSource
from sightline.train.sources import OfflineSource

TOO_LONG = "longer than the model's positions"


@dataclass(frozen=True)
class RolloutPlan:
    """Prompts per step and per pass, the length of the run, the reference, and the processes."""

    prompts: int
    per_pass: int
    epochs: int | None
    max_steps: int | None
    autocast: bool
    seed: int
    reference: FrozenModel
    processes: Processes


@dataclass(frozen=True)
class FilteredPrompts:
    """The prompts that fit with a full-length answer, their mean length with all answers, and dropped counts."""

    samples: list[Sample]
    mean_tokens: float
    dropped: dict[str, int]


def filter_prompts(place: Path, vlm: VLM, config: RLConfig, seen: Callable[[], None]) -> FilteredPrompts:
    """Check every prompt and its images; `seen` is called after each.

    Raises:
        InputError: an image that cannot be opened, a prompt that cannot be encoded, or no prompt that fits.
    """
    folder = samples_file(place).parent.absolute()
    kept: list[Sample] = []
    dropped: Counter[str] = Counter()
    tokens = 0
    for sample in read_samples(place):
        prefix = make_prefix(sample, folder)
        with locate_errors([sample], vlm, place, folder):
            fitting = fits(vlm, prefix, "", config.max_new_tokens)
        if fitting:
            kept.append(sample)
            tokens += len(encode_prefix(vlm, prefix).ids) + config.answers * config.max_new_tokens
        else:
            dropped[TOO_LONG] += 1
        seen()
    if not kept:
        why = f"{dropped[TOO_LONG]} {TOO_LONG} with rl.max_new_tokens more" if dropped else "there is none"
        raise InputError(f"none of the prompts in {place} can be trained on ({why}); give others or lower the limit")
    return FilteredPrompts(kept, tokens / len(kept), dict(dropped))


def make_rollout_parts(
    place: Path, samples: Sequence[Sample], vlm: VLM, config: RLConfig, steps: RolloutPlan
) -> tuple[PolicyTask, RolloutSource]:
    """The task and the source over the filtered samples of the data in `place`.

    Raises:
        InputError: the judge cannot be opened.
    """
    folder = samples_file(place).parent.absolute()
    judge = config.judge.open(RunContext(folder, folder, steps.seed, vlm))
    head = new_head(vlm) if config.advantage.name == "gae" else None
    sampler = PolicySampler(vlm, folder, config, steps.seed, steps.autocast)
    source = RolloutSource(
        OfflineSource(
            samples,
            pairs_per_step=steps.prompts * config.minibatches,
            seed=steps.seed,
            epochs=steps.epochs,
            max_steps=None if steps.max_steps is None else -(-steps.max_steps // config.updates),
        ),
        sampler,
        judge,
        Scorer(vlm, head, steps.reference, steps.per_pass, steps.autocast),
        lambda: find_scale(place, samples, sampler, judge),
        max_steps=steps.max_steps,
        processes=steps.processes,
    )
    return PolicyTask(vlm, config, head, source.scale, autocast=steps.autocast), source


def find_scale(place: Path, samples: Sequence[Sample], sampler: PolicySampler, judge: Judge) -> RewardScale:
    """The reward scale that the config names.

    Raises:
        InputError: as `rollouts.measure_scale`.
    """
    scale = sampler.config.scale
    if scale.by == "nothing":
        return RewardScale(mean=0.0, std=1.0)
    if scale.by == "given" and scale.mean is not None and scale.std is not None:
        return RewardScale(mean=scale.mean, std=scale.std)
    if scale.by == "data":
        inputs = list(read_answers(place))
        return measure_scale(judge, inputs if scale.rows is None else inputs[: scale.rows])
    some = samples[: scale.rows]
    return measure_scale(judge, sampler.judge_inputs(some, sampler.sample(some, -1)))
