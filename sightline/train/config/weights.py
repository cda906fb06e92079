"""Config of the trained weights: optimizer and rates, adapter, validation, guard, losses."""

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from sightline.config import Config
from sightline.errors import InputError
from sightline.losses.objective import Term, check_terms
from sightline.models.adapters import LoraSettings


class OptimizerConfig(Config):
    """AdamW and its rate: a linear warm-up to `lr` over `warmup_fraction` of all steps, then `schedule`.

    `clip_norm` bounds the 2-norm of each step's gradient over all trained weights. `projector_lr` is the peak rate of
    the projector if it is trained, `head_lr` that of a reward model's head; null is `lr`.
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
    """The trained adapter; `sightline.models.adapters.LoraSettings` documents each field.

    Fields added later are written into manifests only if they differ from their default, so that older runs can resume.
    """

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] | None = None
    train_projector: bool = False
    decoupled: bool = False
    vision_tower: bool = Field(default=False, exclude_if=lambda on: not on)

    def settings(self) -> LoraSettings:
        """The same as the settings of `models.adapters`."""
        return LoraSettings(**dict(self))


class ValidationConfig(Config):
    """Hold out a `share` of the pairs, by image, and evaluate on them every `every` steps.

    With `patience` the run ends after that many evaluations in a row without improvement; null never ends it. Either
    way the weights of the best evaluation, by `measure`, are saved.
    """

    share: float = Field(gt=0, lt=1)
    every: int = Field(ge=1)
    measure: Literal["loss", "accuracy"] = "loss"
    patience: int | None = Field(default=None, ge=1)


class GuardConfig(Config):
    """Stop if a step's loss exceeds `factor` times the median over the previous `window` steps.

    The median counts as at least 0.1, since small losses change by large factors. With null, only losses that are not
    finite stop the run.
    """

    factor: float | None = Field(default=100.0, gt=1)
    window: int = Field(default=20, ge=1)


class LossConfig(Config):
    """A loss by its name in the table of losses, with exactly the parameters that the table defines.

    `weight` is its factor in a sum of several losses.
    """

    model_config = ConfigDict(extra="allow")  # still closed: the table checks the keys, below

    name: str
    weight: float = 1.0

    @property
    def term(self) -> Term:
        """The same as a term of `losses.objective`."""
        return Term(self.name, self.weight, dict(self.model_extra or {}))

    @model_validator(mode="after")
    def _check_parameters(self) -> "LossConfig":
        try:
            check_terms([self.term])
        except InputError as error:
            raise ValueError(str(error)) from error
        return self
