"""The numbers of the lab's sounds: how the ear is made, and how large the study of composing is."""

from pydantic import Field

from sightline.config import Config, Seed
from sightline.lab.vocabulary import WorldConfig


class EarConfig(Config):
    """The sound encoder, from scratch: a ViT over spectrograms, and the projector into the base's language model."""

    seed: Seed = 0
    width: int = 128
    layers: int = 2
    sounds: int = Field(default=6000, description="unbiased spectrograms, drawn once")
    steps: int = 500
    batch_size: int = 48
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    sources: int = Field(default=4, ge=1, description="at most so many sources at a time")


class StudyConfig(Config):
    """`sightline lab compose`. Rows are those of one kind of media; the joint model is trained on both kinds' rows."""

    world: WorldConfig = WorldConfig()
    ear: EarConfig = EarConfig()
    rows: int = Field(default=800, ge=1)
    scenes: int = Field(default=200, ge=2, description="of the test, five questions each")
    validation: int = Field(default=20, ge=1, description="soundscapes of the search, five questions each")
    values: tuple[float, ...] = (0.5, 0.75, 1.0)
    density: float = Field(default=0.5, gt=0, lt=1, description="of TIES")
    batch_size: int = Field(default=64, description="questions answered at a time")
