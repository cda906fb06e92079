"""Settings of `sightline chat`: sampling, blinding, and limits on questions and pictures."""

from pydantic import Field

from sightline.config import Config


class ChatConfig(Config):
    """Settings of a chat; picture limits are checked before a picture is decoded."""

    temperature: float = Field(default=0.0, ge=0, description="0 is greedy")
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="nucleus sampling: sample from the likeliest tokens whose probabilities sum to this; 1: from all "
        "tokens",
    )
    max_new_tokens: int = Field(default=256, gt=0, description="token limit of an answer")
    autocast: bool = Field(default=False, description="generate under bfloat16 autocast")
    blind: bool = Field(default=False, description="hide model names and draw the sides for each question")
    max_bytes: int = Field(default=20_000_000, gt=0, description="largest picture file, in bytes")
    max_pixels: int = Field(default=40_000_000, gt=0, description="largest picture, in pixels")
    longest: int = Field(default=8_000, gt=0, description="longest question, in characters")
