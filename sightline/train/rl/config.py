"""The config of training by rewards: how answers are sampled and scored, what an advantage is, how steps are held back.

The published algorithms are settings of the same parts; `docs/rl.md` has them as a table. Numbers that decide the
science have no default.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sightline.config import Config
from sightline.judges.length_control import JudgeConfig


class LeaveOneOutConfig(Config):
    """RLOO: an answer's reward less the mean of the prompt's others (2402.14740)."""

    name: Literal["rloo"]


class GroupConfig(Config):
    """GRPO: an answer's reward less the mean of its prompt, over the deviation or not (2402.03300; 2503.20783)."""

    name: Literal["grpo"]
    divide_by_deviation: bool


class GeneralizedConfig(Config):
    """PPO: generalized advantage estimation over a value head that reads the policy's own states (1506.02438).

    `discount` is gamma, `trace` lambda. The value's loss has the weight `value_weight`, its change is bounded by
    `value_clip` (None: not at all), and its head has the rate `value_lr` (None: that of the optimizer).
    """

    name: Literal["gae"]
    discount: float = Field(ge=0, le=1)
    trace: float = Field(ge=0, le=1)
    value_weight: float = Field(gt=0)
    value_clip: float | None = Field(default=None, gt=0)
    value_lr: float | None = Field(default=None, gt=0)
    whiten: bool = True


class KLConfig(Config):
    """The pull towards the reference, the policy without its adapter.

    In the `reward` it is log(policy / reference), taken off the answer's reward, or with `gae` off each token's; in
    the `loss` it is Schulman's k3 of each token, as GRPO has it.
    """

    weight: float = Field(ge=0)
    place: Literal["reward", "loss"]


class ScaleConfig(Config):
    """Rewards less a mean, over a deviation, both from before training.

    They are those of the judge's scores of answers in the `data` (chosen and rejected ones, or references), of answers
    of the untrained `policy` to prompts of it, or `given`. `rows` is how many rows are asked about, None is all.
    """

    by: Literal["data", "policy", "given", "nothing"]
    rows: int | None = Field(default=None, ge=1)
    mean: float | None = None
    std: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _given_or_not(self) -> "ScaleConfig":
        told = {self.mean is None, self.std is None}
        if told != ({False} if self.by == "given" else {True}):
            raise ValueError("give mean and std with by: given, and with nothing else")
        return self


class RLConfig(Config):
    """Training by rewards. A step takes `batch_size` x `accumulation` prompts with `answers` answers each.

    Answers are drawn from the policy as it is, at temperature 1. A rollout is `minibatches` steps' worth of prompts,
    gone through `inner_epochs` times. `clip` bounds the ratio of new to old probability by token; None is REINFORCE.
    `average` says over what a step's loss is the mean: `answers`, each a sum over its tokens or (`means`) a mean, or
    all `tokens`. An answer that `max_new_tokens` cut off loses `unfinished_penalty` of its scaled reward.
    """

    judge: JudgeConfig
    answers: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    advantage: Annotated[LeaveOneOutConfig | GroupConfig | GeneralizedConfig, Field(discriminator="name")]
    kl: KLConfig
    scale: ScaleConfig
    average: Literal["answers", "means", "tokens"]
    clip: float | None = Field(gt=0)
    inner_epochs: int = Field(default=1, ge=1)
    minibatches: int = Field(default=1, ge=1)
    unfinished_penalty: float = Field(default=0.0, ge=0)
    sampling_batch: int = Field(default=64, ge=1)

    @property
    def updates(self) -> int:
        """Optimizer steps on one rollout."""
        return self.inner_epochs * self.minibatches

    @property
    def least(self) -> int:
        """How many scored answers a prompt needs."""
        return 1 if self.advantage.name == "gae" else 2

    @model_validator(mode="after")
    def _goes_together(self) -> "RLConfig":
        if self.answers < self.least:
            raise ValueError(f"{self.advantage.name} compares a prompt's answers: answers must be 2 or more")
        if self.clip is None and self.updates > 1:
            raise ValueError("several updates on one rollout leave its policy behind: give clip, or one update")
        return self
