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

    name: Literal["rloo"] = Field(description="selects this advantage")


class GroupConfig(Config):
    """GRPO: an answer's reward minus the prompt's mean, optionally over the deviation (2402.03300; 2503.20783)."""

    name: Literal["grpo"] = Field(description="selects this advantage")
    divide_by_deviation: bool = Field(
        description="divide by the deviation of the prompt's rewards (GRPO), or not (Dr. GRPO)"
    )


class GeneralizedConfig(Config):
    """PPO: generalized advantage estimation with a value head on the policy's own states (1506.02438)."""

    name: Literal["gae"] = Field(description="selects this advantage")
    discount: float = Field(ge=0, le=1, description="gamma: discount of later rewards, per token")
    trace: float = Field(ge=0, le=1, description="lambda of the estimate: 0 uses one-step differences, 1 whole returns")
    value_weight: float = Field(gt=0, description="weight of the value loss")
    value_clip: float | None = Field(
        default=None, gt=0, description="largest change of a value within a rollout; null: unbounded"
    )
    value_lr: float | None = Field(
        default=None, gt=0, description="learning rate of the value head; null: the optimizer's"
    )
    whiten: bool = Field(default=True, description="normalize advantages to mean 0 and deviation 1 over the rollout")


class KLConfig(Config):
    """The penalty on divergence from the reference, which is the policy without its adapter.

    In the `reward` it is log(policy / reference), subtracted from the answer's reward or, with `gae`, from each
    token's; in the `loss` it is Schulman's k3 of each token, as in GRPO.
    """

    weight: float = Field(ge=0, description="weight of the penalty; 0: none")
    place: Literal["reward", "loss"] = Field(
        description="subtract log(policy / reference) from the reward, or add k3 of each token to the loss (GRPO)"
    )


class ScaleConfig(Config):
    """Normalization of rewards: minus a mean, divided by a deviation, both measured before training."""

    by: Literal["data", "policy", "given", "nothing"] = Field(
        description="what mean and deviation are measured on before training: scores of the answers in the data, or of "
        "the untrained policy's answers; `given`: below; `nothing`: no scaling"
    )
    rows: int | None = Field(default=None, ge=1, description="rows that are measured; null: all")
    mean: float | None = Field(default=None, description="with by: given, subtracted from each score")
    std: float | None = Field(default=None, gt=0, description="with by: given, divides each score")

    @model_validator(mode="after")
    def _check_given(self) -> "ScaleConfig":
        missing = {self.mean is None, self.std is None}
        if missing != ({False} if self.by == "given" else {True}):
            raise ValueError("give mean and std with by: given only")
        return self


class RLConfig(Config):
    """Training by rewards. A step takes `batch_size` x `accumulation` prompts with `answers` answers each.

    Answers are sampled from the policy at temperature 1.
    """

    judge: JudgeConfig = Field(description="the judge that rewards answers")
    answers: int = Field(ge=1, description="answers sampled per prompt; at least 2 except with gae")
    max_new_tokens: int = Field(ge=1, description="token limit of an answer")
    advantage: Annotated[LeaveOneOutConfig | GroupConfig | GeneralizedConfig, Field(discriminator="name")] = Field(
        description="how rewards become advantages"
    )
    kl: KLConfig = Field(description="penalty on divergence from the reference")
    scale: ScaleConfig = Field(description="normalization of the judge's scores")
    average: Literal["answers", "means", "tokens"] = Field(
        description="what a step's loss is averaged over: answers, each a sum over its tokens (answers) or a mean "
        "(means), or all tokens (tokens)"
    )
    clip: float | None = Field(
        gt=0,
        description="PPO's bound on the ratio of new to old probability per token, as a distance from 1; null: none "
        "(REINFORCE)",
    )
    inner_epochs: int = Field(default=1, ge=1, description="how often a rollout is used")
    minibatches: int = Field(default=1, ge=1, description="steps whose prompts one rollout covers")
    unfinished_penalty: float = Field(
        default=0.0, ge=0, description="subtracted from the scaled reward of an answer that max_new_tokens truncated"
    )
    sampling_batch: int = Field(default=64, ge=1, description="answers generated together; fewer need less memory")

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
