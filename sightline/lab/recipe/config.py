"""The recipe's settings: every number that shapes the base VLM, with its reason."""

from pydantic import Field

from sightline.config import Config, Seed
from sightline.lab.language import ReferenceNoise
from sightline.lab.words import WorldConfig


class Phase(Config):
    """One phase of instruction tuning, with its own learning-rate schedule."""

    steps: int = Field(description="optimizer steps of the phase")
    described: float = Field(ge=0, le=1, description="share of rows with a picture that are descriptions")
    text_only: float = Field(ge=0, le=1, description="share of rows without a picture: they keep the prior fluent")
    lost: float = Field(
        default=0.0, ge=0, le=1, description="share whose picture is one even color, as in web data with lost pictures"
    )
    noise: ReferenceNoise | None = Field(default=None, description="noise of its descriptions [the recipe's]")


class RecipeConfig(Config):
    """Settings of `sightline lab train-base`. Steps, not minutes, so that a seed gives the same model everywhere."""

    seed: Seed = Field(default=0, description="seed of the model's initialization and data")
    world: WorldConfig = Field(default=WorldConfig(), description="the world of the training scenes")
    noise: ReferenceNoise = Field(default=ReferenceNoise(), description="noise of the training descriptions")

    patch_size: int = Field(default=12, description="96 / 12 = 8 x 8 = 64 image tokens")
    width: int = Field(default=256, description="width of the vision tower and the language model")
    vision_layers: int = Field(default=6, description="layers of the vision tower")
    language_layers: int = Field(default=6, description="layers of the language model")
    vocabulary: int = Field(
        default=800, description="BPE tokens; the lab's words fit whole, other text falls back to bytes"
    )

    perception_scenes: int = Field(
        default=32_000, description="unbiased, full scenes for the tower, rendered once and flipped"
    )
    perception_batch: int = Field(default=24, description="scenes per step of the vision tower's training")
    perception_steps: int = Field(default=3000, description="steps of the vision tower's training")
    perception_rate: float = Field(default=1e-3, description="peak learning rate of the vision tower's training")
    prior_rows: int = Field(
        default=14_000, description="text-only rows of natural scenes: where the language prior comes from"
    )
    prior_described: float = Field(
        default=0.6, ge=0, le=1, description="share of those rows that are descriptions; the rest are questions"
    )
    train_scenes: int = Field(default=14_000, description="natural scenes for alignment and instruction tuning")
    align_steps: int = Field(default=200, description="projector alone, to the words of what its patches show")
    phases: tuple[Phase, ...] = Field(
        default=(
            Phase(steps=1600, described=0.6, text_only=0.07, lost=0.05),
            # After the first phase, 11 % of natural validation descriptions hallucinated; the second one has noisier
            # references.
            Phase(steps=160, described=0.85, text_only=0.07, lost=0.05, noise=ReferenceNoise(companion=0.95)),
        ),
        description="the phases of instruction tuning, in order",
    )
    batch_size: int = Field(
        default=32, description="rows per step of the language prior, alignment and instruction tuning"
    )
    learning_rate: float = Field(
        default=1e-3, description="peak learning rate of the language prior and of instruction tuning"
    )
    weight_decay: float = Field(default=0.05, description="weight decay of all training")
