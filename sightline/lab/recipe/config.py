"""The recipe's settings: every number that shapes the base VLM, with its reason."""

from pydantic import Field

from sightline.config import Config, Seed
from sightline.lab.language import ReferenceNoise
from sightline.lab.words import WorldConfig


class Phase(Config):
    """One phase of instruction tuning, with its own learning-rate schedule."""

    steps: int
    described: float = Field(ge=0, le=1, description="share of rows with a picture that are descriptions")
    text_only: float = Field(ge=0, le=1, description="share of rows without a picture: they keep the prior fluent")
    lost: float = Field(
        default=0.0, ge=0, le=1, description="share whose picture is one even color, as in web data with lost pictures"
    )
    noise: ReferenceNoise | None = Field(default=None, description="noise of its descriptions [the recipe's]")


class RecipeConfig(Config):
    """Settings of `sightline lab train-base`. Steps, not minutes, so that a seed gives the same model everywhere."""

    seed: Seed = 0
    world: WorldConfig = WorldConfig()
    noise: ReferenceNoise = Field(default=ReferenceNoise(), description="noise of the training descriptions")

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
    perception_steps: int = 3000
    perception_rate: float = 1e-3
    prior_rows: int = Field(
        default=14_000, description="text-only rows of natural scenes: where the language prior comes from"
    )
    prior_described: float = Field(
        default=0.6, ge=0, le=1, description="share of those rows that are descriptions; the rest are questions"
    )
    train_scenes: int = Field(default=14_000, description="natural scenes for alignment and instruction tuning")
    align_steps: int = Field(default=200, description="projector alone, to the words of what its patches show")
    phases: tuple[Phase, ...] = (
        Phase(steps=1600, described=0.6, text_only=0.07, lost=0.05),
        # After the first phase, 11 % of natural validation descriptions hallucinated; this one uses noisier references.
        Phase(steps=160, described=0.85, text_only=0.07, lost=0.05, noise=ReferenceNoise(companion=0.95)),
    )
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
