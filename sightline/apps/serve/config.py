"""What `sightline serve` is told beside the model: limits, and what is logged."""

from typing import Literal

from pydantic import Field

from sightline.config import Config


class ServeConfig(Config):
    """Limits of the door, and what goes into the log where there is one."""

    max_mb: float = Field(default=20, gt=0, description="largest body of a request, in MiB")
    max_pixels: int = Field(default=40_000_000, gt=0, description="largest picture, in pixels")
    max_images: int = Field(default=16, gt=0, description="most pictures of one call")
    max_call_pixels: int = Field(default=80_000_000, gt=0, description="all pictures of one call together, in pixels")
    max_tokens: int = Field(default=1024, gt=0, description="most tokens of an answer that a call may ask for")
    default_tokens: int = Field(default=256, gt=0, description="tokens of an answer where a call names no number")
    max_connections: int = Field(default=100, gt=0, description="clients that may be connected at once")
    header_seconds: float = Field(default=10, gt=0, description="time a client has to send a request's headers")
    body_seconds: float = Field(default=60, gt=0, description="time a client has to send a request's body")
    wait: float = Field(default=600, gt=0, description="seconds until the model must be ready")
    timeout: float = Field(default=600, gt=0, description="seconds without a byte after which an answer is given up")
    redact: Literal["nothing", "prompts", "texts"] = Field(
        default="nothing", description="what is left out of the log: no text, what was asked, or answers as well"
    )
    keep_images: bool = Field(default=False, description="keep the pictures beside the log, not their hashes alone")
    file_mb: float = Field(default=64, gt=0, description="size at which the log begins a new file, in MiB")
    device: str = Field(default="auto", description="for Transformers: cpu, cuda:0, ...")
    dtype: str = Field(default="auto", description="of the weights; auto: as they are on disk")
