"""What `sightline export model` is told beside the model: how weights are kept, and how closely that is checked."""

from typing import Literal

from pydantic import Field

from sightline.config import Config

Weights = Literal["bfloat16", "float16", "float32", "int8", "int4"]


class ExportModelConfig(Config):
    """The form of the weights, and the check on reload."""

    weights: Weights = Field(default="bfloat16", description="int8 and int4: linear layers of the language model")
    tolerance: float = Field(
        default=1e-3,
        gt=0,
        description="largest difference of a log-prob (nats) by merging, and by writing and reading again",
    )
    name: str = Field(default="", max_length=100, description="what the card calls it; empty: the directory's name")
    license: str = Field(default="other", pattern=r"^[\w.-]+$", description="of the weights; the base model's decides")
