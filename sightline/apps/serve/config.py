"""What `sightline serve` is told beside the model: limits, and what is logged."""

from typing import Literal

from pydantic import Field

from sightline.config import Config


class ServeConfig(Config):
    """Limits of the door, and what goes into the log where there is one."""

    max_mb: float = Field(default=20, gt=0, description="largest body of a request, in MiB")
    max_pixels: int = Field(default=40_000_000, gt=0, description="largest picture, in pixels")
    wait: float = Field(default=600, gt=0, description="seconds until the model must be ready")
    timeout: float = Field(default=600, gt=0, description="seconds without a byte after which an answer is given up")
    redact: Literal["nothing", "prompts", "texts"] = Field(
        default="nothing", description="what is left out of the log: no text, what was asked, or answers as well"
    )
    keep_images: bool = Field(default=False, description="keep the pictures beside the log, not their hashes alone")
    file_mb: float = Field(default=64, gt=0, description="size at which the log begins a new file, in MiB")
    device: str = Field(default="auto", description="for Transformers: cpu, cuda:0, ...")
    dtype: str = Field(default="auto", description="of the weights; auto: as they are on disk")
