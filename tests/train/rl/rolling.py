"""Runs by rewards on the tiny model, with judges whose scores are known in advance."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline.judges.judge import Judge, Verdict
from sightline.models.requests import JudgeInput
from sightline.models.scalar_head import new_head
from sightline.models.vlm import VLM
from sightline.records.rows import Sample
from sightline.train.config import OptimizerConfig
from sightline.train.loop import StepSettings, TrainState, trainable_weights
from sightline.train.optimizer import make_optimizer
from sightline.train.reference_cache import PolicyWithoutAdapter
from sightline.train.rl.config import RLConfig
from sightline.train.rl.policy import PolicyTask, Scorer
from sightline.train.rl.rollouts import PolicySampler, RewardScale, Rollout
from sightline.train.rl.source import RolloutSource
from sightline.train.sources import OfflineSource

RLOO: dict[str, Any] = {
    "judge": {"name": "oracle"},  # the tests put their own in its place
    "answers": 4,
    "max_new_tokens": 8,
    "advantage": {"name": "rloo"},
    "kl": {"weight": 0.0, "place": "reward"},
    "scale": {"by": "nothing"},
    "average": "answers",
    "clip": None,
}
GRPO = RLOO | {"advantage": {"name": "grpo", "divide_by_deviation": True}, "average": "means", "clip": 0.2}
PPO = RLOO | {
    "advantage": {"name": "gae", "discount": 1.0, "trace": 0.95, "value_weight": 0.1, "value_clip": 0.2},
    "answers": 2,
    "average": "tokens",
    "clip": 0.2,
    "inner_epochs": 2,
    "minibatches": 2,
}


class Counts:
    """Scores by how often a text occurs; answers that hold `silent_on` are unscored."""

    identity = "counts"

    def __init__(self, text: str, silent_on: str | None = None) -> None:
        self._text, self._silent_on = text, silent_on

    def score(self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
        return [
            Verdict(None, note="silence")
            if self._silent_on is not None and self._silent_on in one.answer
            else Verdict(float(one.answer.count(self._text)))
            for one in inputs
        ]


def samples_of(pictures: Sequence[Path]) -> list[Sample]:
    prompts = ("Describe the picture.", "Is there a spoon in the image?", "How many cows are there?")
    return [
        Sample(id=f"sample-{number}", images=(picture.name,), prompt=prompts[number % 3], reference="A red cup.")
        for number, picture in enumerate(pictures)
    ]


def state_of(  # noqa: PLR0913 - what a test may vary
    vlm: VLM,
    pictures: Sequence[Path],
    settings: dict[str, Any],
    judge: Judge,
    *,
    prompts: int = 4,
    max_steps: int = 1,
    lr: float = 0.01,
    scale: RewardScale | None = None,
) -> TrainState[Rollout]:
    config = RLConfig.model_validate(settings)
    head = new_head(vlm) if config.advantage.name == "gae" else None
    source = RolloutSource(
        OfflineSource(
            samples_of(pictures),
            pairs_per_step=prompts * config.minibatches,
            seed=0,
            max_steps=-(-max_steps // config.updates),
        ),
        PolicySampler(vlm, pictures[0].parent, config, seed=0, autocast=False),
        judge,
        Scorer(vlm, head, PolicyWithoutAdapter(vlm), per_pass=3, autocast=False),
        lambda: scale or RewardScale(mean=0.0, std=1.0),
        max_steps=max_steps,
    )
    task = PolicyTask(vlm, config, head, source.scale, autocast=False)
    optimizer = make_optimizer(trainable_weights(vlm, task), OptimizerConfig(lr=lr))
    return TrainState(vlm, optimizer, source, task)


def settings_of(batch_size: int = 4, clip_norm: float = 1e9) -> StepSettings:
    return StepSettings(batch_size, schedule=lambda _: 1.0, clip_norm=clip_norm, seed=0)
