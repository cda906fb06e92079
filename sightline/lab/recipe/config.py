"""The recipe's settings, one class; every number that shapes the base VLM stands here with its reason."""

from pydantic import Field

from sightline.config import Config
from sightline.lab.language import ReferenceNoise
from sightline.lab.vocabulary import WorldConfig


class Phase(Config):
    """One phase of instruction tuning, with a learning-rate schedule of its own."""

    steps: int
    described: float = Field(ge=0, le=1, description="share of rows with a picture that are descriptions")
    text_only: float = Field(ge=0, le=1, description="share of rows without a picture: they keep the prior fluent")
    noise: ReferenceNoise


class RecipeConfig(Config):
    """Settings of `sightline lab train-base`. Steps, not minutes, so that a seed gives the same model everywhere."""

    seed: int = 0
    world: WorldConfig = WorldConfig()
    noise: ReferenceNoise = Field(
        default=ReferenceNoise(absent_object=0.2), description="of the prior's text and of alignment"
    )

    patch_size: int = Field(default=12, description="96 / 12 = 8 x 8 = 64 image tokens")
    width: int = 256
    vision_layers: int = 6
    language_layers: int = 6
    vocabulary: int = Field(
        default=800, description="BPE tokens; the lab's words fit whole, other text falls back to bytes"
    )

    perception_scenes: int = Field(
        default=32_000, description="unbiased, full scenes for the tower, rendered once and flipped"
    )
    perception_batch: int = 24
    perception_steps: int = 6000
    perception_rate: float = 8e-4
    prior_rows: int = Field(
        default=14_000, description="text-only rows of natural scenes: where the language prior comes from"
    )
    prior_epochs: int = 1
    train_scenes: int = Field(default=14_000, description="natural scenes for alignment and instruction tuning")
    align_steps: int = Field(default=150, description="projector alone, language model frozen")
    phases: tuple[Phase, ...] = (
        Phase(steps=1000, described=0.5, text_only=0.15, noise=ReferenceNoise(absent_object=0.2)),
        # After the first, descriptions still repeated themselves: more of them.
        Phase(steps=700, described=0.8, text_only=0.1, noise=ReferenceNoise(absent_object=0.35)),
        # After the second, only 3 % of natural descriptions hallucinated: references as wrong as text-only annotators'.
        Phase(steps=180, described=0.9, text_only=0.1, noise=ReferenceNoise(absent_object=0.75)),
    )
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
