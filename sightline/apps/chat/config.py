"""How the models of a chat answer, and what may be sent to them."""

from pydantic import Field

from sightline.config import Config


class ChatConfig(Config):
    """Settings of a chat; limits of pictures are looked at before anything is decoded."""

    temperature: float = Field(default=0.0, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=256, gt=0, description="limit of one answer")
    autocast: bool = Field(default=False, description="bfloat16 autocast while answering")
    blind: bool = Field(default=False, description="names are not shown, and sides are drawn for each question")
    max_bytes: int = Field(default=20_000_000, gt=0, description="of a picture's file")
    max_pixels: int = Field(default=40_000_000, gt=0, description="of a picture")
    longest: int = Field(default=8_000, gt=0, description="characters of a question")
