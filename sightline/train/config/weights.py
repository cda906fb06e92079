"""Config of the trained weights: optimizer and rates, adapter, validation, guard, losses."""

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from sightline.config import Config
from sightline.errors import InputError
from sightline.losses.objective import Term, check_terms
from sightline.models.adapters import LoraSettings


class OptimizerConfig(Config):
    """AdamW, with a linear warm-up to `lr` over `warmup_fraction` of all steps, then `schedule`."""

    lr: float = Field(gt=0, description="peak learning rate of AdamW")
    betas: tuple[float, float] = Field(
        default=(0.9, 0.999), description="AdamW's decay rates of the first and second moment"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's weight decay")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="learning rate after the warm-up: cosine or linear to 0, or constant"
    )
    warmup_fraction: float = Field(
        default=0.1, ge=0, le=1, description="share of all steps over which the rate rises linearly to `lr`"
    )
    clip_norm: float = Field(
        default=1.0, gt=0, description="largest 2-norm of a step's gradient over all trained weights"
    )
    projector_lr: float | None = Field(
        default=None, gt=0, description="peak rate of the projector, if it is trained; null: `lr`"
    )
    head_lr: float | None = Field(default=None, gt=0, description="peak rate of a reward model's head; null: `lr`")


class LoraConfig(Config):
    """The trained adapter; `sightline.models.adapters.LoraSettings` has the same fields.

    Fields added later are written into manifests only if they differ from their default, so that older runs can resume.
    """

    rank: int = Field(default=16, ge=1, description="rank of the low-rank update")
    alpha: float = Field(default=32.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout on the adapter's input")
    targets: str | tuple[str, ...] | None = Field(
        default=None,
        description="modules to adapt: a regular expression over whole names, or a list of name endings; null: every "
        "linear layer of the language model",
    )
    train_projector: bool = Field(
        default=False,
        description="also train the projector between vision and language in full, as in the BDHS study (app. A)",
    )
    decoupled: bool = Field(
        default=False, description="two adapters, one for image tokens and one for all others (DAMC, 2402.12750)"
    )
    vision_tower: bool = Field(
        default=False,
        exclude_if=lambda on: not on,
        description="let targets include the vision tower and the projector",
    )

    def settings(self) -> LoraSettings:
        """The same as the settings of `models.adapters`."""
        return LoraSettings(**dict(self))


class ValidationConfig(Config):
    """Held-out pairs. The weights of the best evaluation are saved, whether or not `patience` ends the run early."""

    share: float = Field(gt=0, lt=1, description="share of the pairs to hold out; pairs of one image stay together")
    every: int = Field(ge=1, description="steps between evaluations")
    measure: Literal["loss", "accuracy"] = Field(
        default="loss", description="what decides the best evaluation, whose weights are saved"
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="end the run after so many evaluations in a row without improvement; null: never",
    )


class GuardConfig(Config):
    """The guard against a loss that explodes.

    The median counts as at least 0.1, since small losses change by large factors.
    """

    factor: float | None = Field(
        default=100.0,
        gt=1,
        description="stop if a step's loss exceeds this many times the recent median; null: only if the loss is not "
        "finite",
    )
    window: int = Field(default=20, ge=1, description="preceding steps of the median, which counts as at least 0.1")


class LossConfig(Config):
    """A loss by its name in the table of losses, with exactly the parameters that the table defines."""

    model_config = ConfigDict(extra="allow")  # still closed: the table checks the keys, below

    name: str = Field(description="a name of the table of losses; the loss's own parameters are further keys")
    weight: float = Field(default=1.0, description="factor of the loss in a sum of several")

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
