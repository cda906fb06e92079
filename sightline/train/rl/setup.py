"""The parts of a run by rewards: prompts that fit, the judge, the value head, the source and the task.

`train.setup` puts them under the optimizer and into the loop.
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
from sightline.models.requests import prefix_of
from sightline.models.scalar_head import new_head
from sightline.models.vlm import VLM
from sightline.records.rows import Sample
from sightline.train.naming import naming
from sightline.train.processes import Processes
from sightline.train.reference_cache import Frozen
from sightline.train.rl.config import RLConfig
from sightline.train.rl.policy import PolicyTask, Scorer
from sightline.train.rl.rollouts import Asker, RewardScale, answers_in, measure
from sightline.train.rl.source import RolloutSource
from sightline.train.sources import OfflineSource

TOO_LONG = "longer than the model's positions"


@dataclass(frozen=True)
class Steps:
    """How many prompts a step takes, how many go through the model at a time, how long the run is, and who does it."""

    prompts: int
    per_pass: int
    epochs: int | None
    max_steps: int | None
    autocast: bool
    seed: int
    reference: Frozen
    processes: Processes


@dataclass(frozen=True)
class FilteredPrompts:
    """The prompts that fit with an answer of full length, their mean length with all answers, and what was dropped."""

    samples: list[Sample]
    mean_tokens: float
    dropped: dict[str, int]


def admit_prompts(place: Path, vlm: VLM, config: RLConfig, seen: Callable[[], None]) -> FilteredPrompts:
    """Look at every prompt and its images; `seen` is called after each.

    Raises:
        InputError: an image that cannot be opened, a prompt that cannot be encoded, none that fits.
    """
    folder = samples_file(place).parent.absolute()
    kept: list[Sample] = []
    dropped: Counter[str] = Counter()
    tokens = 0
    for sample in read_samples(place):
        prefix = prefix_of(sample, folder)
        with naming([sample], vlm, place, folder):
            fitting = fits(vlm, prefix, "", config.max_new_tokens)
        if fitting:
            kept.append(sample)
            tokens += len(encode_prefix(vlm, prefix).ids) + config.answers * config.max_new_tokens
        else:
            dropped[TOO_LONG] += 1
        seen()
    if not kept:
        why = f"{dropped[TOO_LONG]} {TOO_LONG} with rl.max_new_tokens more" if dropped else "there is none"
        raise InputError(f"none of the prompts in {place} can be trained on ({why}); give others or lower that limit")
    return FilteredPrompts(kept, tokens / len(kept), dict(dropped))


def rollout_parts(
    place: Path, samples: Sequence[Sample], vlm: VLM, config: RLConfig, steps: Steps
) -> tuple[PolicyTask, RolloutSource]:
    """The task and the source over those samples of the data in `place` that were admitted.

    Raises:
        InputError: what the judge's `open` refuses.
    """
    folder = samples_file(place).parent.absolute()
    judge = config.judge.open(RunContext(folder, folder, steps.seed, vlm))
    head = new_head(vlm) if config.advantage.name == "gae" else None
    asker = Asker(vlm, folder, config, steps.seed, steps.autocast)
    source = RolloutSource(
        OfflineSource(
            samples,
            pairs_per_step=steps.prompts * config.minibatches,
            seed=steps.seed,
            epochs=steps.epochs,
            max_steps=None if steps.max_steps is None else -(-steps.max_steps // config.updates),
        ),
        asker,
        judge,
        Scorer(vlm, head, steps.reference, steps.per_pass, steps.autocast),
        lambda: scale_of(place, samples, asker, judge),
        max_steps=steps.max_steps,
        processes=steps.processes,
    )
    return PolicyTask(vlm, config, head, source.scale, autocast=steps.autocast), source


def scale_of(place: Path, samples: Sequence[Sample], asker: Asker, judge: Judge) -> RewardScale:
    """The scale of rewards that the config names.

    Raises:
        InputError: as `reward_scale.measure`.
    """
    how = asker.config.scale
    if how.by == "nothing":
        return RewardScale(mean=0.0, std=1.0)
    if how.by == "given" and how.mean is not None and how.std is not None:
        return RewardScale(mean=how.mean, std=how.std)
    if how.by == "data":
        asked = list(answers_in(place))
        return measure(judge, asked if how.rows is None else asked[: how.rows])
    some = samples[: how.rows]
    return measure(judge, asker.judge_inputs(some, asker.ask(some, -1)))
