"""How weights are trained: the optimizer and its rates, and the adapter."""

from typing import Literal

from pydantic import Field

from sightline.config import Config
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
