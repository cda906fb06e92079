"""The config of the training stage: small closed sections, and no default for the numbers that decide the science.

Directories and the seed are arguments of the command and not in here. `run.train` takes this config; which parameters
a loss needs is asked of the table of losses.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_serializer, field_validator, model_validator

from sightline.config import Config
from sightline.errors import InputError
from sightline.losses.objective import Term, check_terms, make_objective
from sightline.losses.types import Need
from sightline.models.adapters import LoraSettings
from sightline.train.monitors import MonitorConfig
from sightline.train.tracking import TrackingConfig

SUPPLIED = frozenset({Need.REFERENCE})  # what the loop can give a loss


class LossConfig(Config):
    """A loss by its name in the table of losses, and beside the name exactly the parameters that the table asks for.

    `weight` is its share where several losses are added up.
    """

    model_config = ConfigDict(extra="allow")  # closed all the same: the table decides, below

    name: str
    weight: float = 1.0

    @property
    def term(self) -> Term:
        """The same in the terms of the losses room."""
        return Term(self.name, self.weight, dict(self.model_extra or {}))

    @model_validator(mode="after")
    def _ask_the_table(self) -> "LossConfig":
        try:
            check_terms([self.term])
        except InputError as error:
            raise ValueError(str(error)) from error
        return self


def _as_list(loss: object) -> object:
    return [loss] if isinstance(loss, Mapping | LossConfig) else loss


class OptimizerConfig(Config):
    """AdamW and its rate: a rise to `lr` over `warmup_fraction` of all steps, then `schedule`.

    `clip_norm` bounds the 2-norm of each step's gradient over all trained weights.
    """

    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_fraction: float = Field(default=0.1, ge=0, le=1)
    clip_norm: float = Field(default=1.0, gt=0)


class LoraConfig(Config):
    """The adapter that is trained; `sightline.models.adapters.LoraSettings` says what each field does."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] | None = None
    train_projector: bool = False

    def settings(self) -> LoraSettings:
        """The same in the terms of the models room."""
        return LoraSettings(**dict(self))


class TrainConfig(Config):
    """One training run.

    `loss` is one loss or a list of several, each with its `weight` in the sum; the rewards shown are the first one's.
    A step takes `batch_size` x `accumulation` pairs. At most `batch_size` of them are in memory at a time, and fewer
    where so many pairs of mean length hold more than `pass_tokens` tokens (2,048 on a CPU, 16,384 on a GPU). Give
    either `epochs` or `max_steps`. Pairs with an answer of more than `max_length` tokens, prompt and images included,
    are dropped and counted, as are those that exceed the model's positions. `dtype` is that of the frozen weights; the
    adapter is float32 always. `autocast` runs the forward in bfloat16: faster on a GPU and on a CPU with bfloat16
    units, slower on other CPUs, and a little different in its numbers, so nothing guesses it.
    `activation_checkpointing` keeps one tensor a layer and computes the rest again for the gradient: less memory, a
    third more work, the same numbers. `checkpoint_every` is in steps. `track` shows the log in a tracker besides;
    `monitors` are the limits beyond which the run warns.
    """

    loss: Annotated[tuple[LossConfig, ...], BeforeValidator(_as_list)]
    optim: OptimizerConfig
    lora: LoraConfig = LoraConfig()
    batch_size: int = Field(default=8, ge=1)
    accumulation: int = Field(default=1, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    pass_tokens: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=1)
    checkpoint_every: int = Field(default=20, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    autocast: bool = False
    activation_checkpointing: bool = False
    track: TrackingConfig | None = None
    monitors: MonitorConfig = MonitorConfig()

    @property
    def terms(self) -> tuple[Term, ...]:
        """The losses in the terms of their room."""
        return tuple(loss.term for loss in self.loss)

    @field_serializer("loss")
    def _as_told(self, losses: tuple[LossConfig, ...]) -> dict[str, object] | list[dict[str, object]]:
        """One loss as one mapping, so that a manifest reads, and is compared, as the config was written."""
        told = [loss.model_dump(exclude_unset=True) for loss in losses]
        return told if len(told) > 1 else told[0]

    @field_validator("loss")
    @classmethod
    def _goes_together(cls, losses: tuple[LossConfig, ...]) -> tuple[LossConfig, ...]:
        terms = [loss.term for loss in losses]
        bare = [loss.name for loss in losses if "weight" not in loss.model_fields_set]
        if bare and len(losses) > 1:
            raise ValueError(f"loss.weight is missing: of several losses, each needs one, and {bare[0]} has none")
        try:
            lacking = make_objective(terms).needs - SUPPLIED
        except InputError as error:
            raise ValueError(str(error)) from error
        if lacking:
            raise ValueError(f"training cannot give a loss its {', '.join(sorted(lacking))} yet; choose another loss")
        return losses

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("give either epochs or max_steps, and not both (KEY=null takes one back)")
        return self
