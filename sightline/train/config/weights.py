"""How weights are trained: the optimizer and its rates, and the adapter."""

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from sightline.config import Config
from sightline.errors import InputError
from sightline.losses.objective import Term, check_terms
from sightline.losses.types import Need
from sightline.models.adapters import LoraSettings


class OptimizerConfig(Config):
    """AdamW and its rate: a rise to `lr` over `warmup_fraction` of all steps, then `schedule`.

    `clip_norm` bounds the 2-norm of each step's gradient over all trained weights. `projector_lr` is the peak rate of
    the projector, where it is trained, `head_lr` that of a reward model's head; null is `lr`.
    """

    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_fraction: float = Field(default=0.1, ge=0, le=1)
    clip_norm: float = Field(default=1.0, gt=0)
    projector_lr: float | None = Field(default=None, gt=0)
    head_lr: float | None = Field(default=None, gt=0)


class LoraConfig(Config):
    """The adapter that is trained; `sightline.models.adapters.LoraSettings` says what each field does.

    A field that was added later is written into manifests where it differs from its default, so that runs from before
    it can go on.
    """

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] | None = None
    train_projector: bool = False
    decoupled: bool = False
    vision_tower: bool = Field(default=False, exclude_if=lambda on: not on)

    def settings(self) -> LoraSettings:
        """The same in the terms of the models room."""
        return LoraSettings(**dict(self))


class ValidationConfig(Config):
    """Hold a `share` of the pairs out, by picture, and look at them every `every` steps.

    With `patience` the run ends after so many looks in a row that were no better than the best one; null lets it go on.
    Either way the weights of the best look, by `measure`, are those that are saved.
    """

    share: float = Field(gt=0, lt=1)
    every: int = Field(ge=1)
    measure: Literal["loss", "accuracy"] = "loss"
    patience: int | None = Field(default=None, ge=1)


class GuardConfig(Config):
    """Stop where a step's loss is more than `factor` times the median over the `window` steps before.

    The median counts as 0.1 at least, since small losses jump by large factors. Null lets everything pass but what is
    not finite.
    """

    factor: float | None = Field(default=100.0, gt=1)
    window: int = Field(default=20, ge=1)


SUPPLIED = frozenset(Need)  # what training can give a loss


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
