"""Config of training by rewards: sampling and scoring of answers, the advantage, and the limits of an update.

The published algorithms are settings of the same parts; `docs/guides/rewards.md` lists them in a table.
Numbers that decide the science have no default.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sightline.config import Config
from sightline.judges.length_control import JudgeConfig


class LeaveOneOutConfig(Config):
    """RLOO: an answer's reward minus the mean reward of the prompt's other answers (2402.14740)."""

    name: Literal["rloo"]


class GroupConfig(Config):
    """GRPO: an answer's reward minus the prompt's mean, optionally over the deviation (2402.03300; 2503.20783)."""

    name: Literal["grpo"]
    divide_by_deviation: bool


class GeneralizedConfig(Config):
    """PPO: generalized advantage estimation with a value head on the policy's own states (1506.02438).

    `discount` is gamma, `trace` lambda. The value loss has the weight `value_weight`, its change is bounded by
    `value_clip` (None: unbounded), and its head has the rate `value_lr` (None: the optimizer's).
    """

    name: Literal["gae"]
    discount: float = Field(ge=0, le=1)
    trace: float = Field(ge=0, le=1)
    value_weight: float = Field(gt=0)
    value_clip: float | None = Field(default=None, gt=0)
    value_lr: float | None = Field(default=None, gt=0)
    whiten: bool = True


class KLConfig(Config):
    """The penalty on divergence from the reference, which is the policy without its adapter.

    In the `reward` it is log(policy / reference), subtracted from the answer's reward or, with `gae`, from each
    token's; in the `loss` it is Schulman's k3 of each token, as in GRPO.
    """

    weight: float = Field(ge=0)
    place: Literal["reward", "loss"]


class ScaleConfig(Config):
    """Normalization of rewards: minus a mean, divided by a deviation, both measured before training.

    They come from the judge's scores of the answers in the `data` (chosen and rejected ones, or references), of the
    untrained `policy`'s answers to its prompts, or are `given`. `rows` limits the rows used; None is all.
    """

    by: Literal["data", "policy", "given", "nothing"]
    rows: int | None = Field(default=None, ge=1)
    mean: float | None = None
    std: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check_given(self) -> "ScaleConfig":
        missing = {self.mean is None, self.std is None}
        if missing != ({False} if self.by == "given" else {True}):
            raise ValueError("give mean and std with by: given only")
        return self


class RLConfig(Config):
    """Training by rewards. A step takes `batch_size` x `accumulation` prompts with `answers` answers each.

    Answers are sampled from the policy at temperature 1. A rollout covers the prompts of `minibatches` steps and is
    used `inner_epochs` times. `clip` bounds the ratio of new to old probability per token; None is REINFORCE. `average`
    is what a step's loss is averaged over: `answers`, each a sum over its tokens or (`means`) a mean, or all `tokens`.
    An answer truncated by `max_new_tokens` loses `unfinished_penalty` of its scaled reward.
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
        """Optimizer steps per rollout."""
        return self.inner_epochs * self.minibatches

    @property
    def min_answers(self) -> int:
        """The number of scored answers that a prompt needs."""
        return 1 if self.advantage.name == "gae" else 2

    @model_validator(mode="after")
    def _check_answers(self) -> "RLConfig":
        if self.answers < self.min_answers:
            raise ValueError(f"{self.advantage.name} compares a prompt's answers: answers must be 2 or more")
        if self.clip is None and self.updates > 1:
            raise ValueError("after several updates a rollout is off-policy: set clip, or use one update")
        return self
