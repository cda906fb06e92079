"""When a run ends before its last step: because it no longer gets better, or because it has gone wrong."""

from typing import Literal

from pydantic import Field

from sightline.config import Config


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
