"""Settings of `sightline export model`: weight format, and tolerance of the reload check."""

from typing import Literal

from pydantic import Field

from sightline.config import Config

Weights = Literal["bfloat16", "float16", "float32", "int8", "int4"]


class ExportModelConfig(Config):
    """Weight format, reload check, and the card's name and license."""

    weights: Weights = Field(
        default="bfloat16", description="weight format; int8 and int4 quantize the language model's linear layers"
    )
    tolerance: float = Field(
        default=1e-3,
        gt=0,
        description="largest log-prob difference (nats) after merging, and after saving and reloading",
    )
    name: str = Field(default="", max_length=100, description="model name in the card; empty: the directory's name")
    license: str = Field(
        default="other", pattern=r"^[\w.-]+$", description="license of the weights; the base model's applies"
    )
