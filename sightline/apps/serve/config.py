"""Settings of `sightline serve`: limits, and the contents of the log."""

from typing import Literal

from pydantic import Field

from sightline.config import Config


class ServeConfig(Config):
    """Limits of the proxy, and the contents of the request log."""

    max_mb: float = Field(default=20, gt=0, description="largest request body, in MiB")
    max_pixels: int = Field(default=40_000_000, gt=0, description="largest picture, in pixels")
    max_images: int = Field(default=16, gt=0, description="most pictures per call")
    max_call_pixels: int = Field(default=80_000_000, gt=0, description="all pictures of a call together, in pixels")
    max_tokens: int = Field(default=1024, gt=0, description="most answer tokens a call may request")
    default_tokens: int = Field(default=256, gt=0, description="answer tokens if a call names no number")
    max_connections: int = Field(default=100, gt=0, description="most simultaneous connections")
    header_seconds: float = Field(default=10, gt=0, description="time limit for receiving a request's headers")
    body_seconds: float = Field(default=60, gt=0, description="time limit for receiving a request's body")
    wait: float = Field(default=600, gt=0, description="seconds to wait for the model to be ready")
    timeout: float = Field(default=600, gt=0, description="seconds without a byte before an answer is aborted")
    redact: Literal["nothing", "prompts", "texts"] = Field(
        default="nothing", description="texts to leave out of the log: nothing, prompts, or all texts"
    )
    keep_images: bool = Field(default=False, description="store the pictures beside the log, not only their hashes")
    file_mb: float = Field(default=64, gt=0, description="log file size at which a new file is started, in MiB")
    device: str = Field(
        default="auto", description="device of Transformers, such as cpu or cuda:0; auto: cuda if there is a GPU"
    )
    dtype: str = Field(default="auto", description="dtype of the weights; auto: as on disk")
