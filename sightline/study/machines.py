"""What a study's config says of machines: the speed of another one, for estimates, and cards, for launch scripts.

None of it affects results or the keys of jobs.
"""

from pydantic import Field

from sightline.config import Config


class RatesSpec(Config):
    """Approximate seconds per unit on a device, stated by the user, for an estimate on another machine."""

    device: str = Field(description="the device that the rates hold for, as shown in the estimate")
    row: dict[str, float] = Field(
        default_factory=dict, description="seconds per row by builder (or samples, layout, take); `other` for the rest"
    )
    example: dict[str, float] = Field(
        default_factory=dict,
        description="seconds per training example by source (offline, online, bdhs, mixed, rl); `other` for the rest",
    )
    answer: dict[str, float] = Field(
        default_factory=dict, description="seconds per answer by benchmark; `other` for the rest"
    )
    prefix_tokens: int | None = Field(
        default=None, ge=1, description="mean tokens of prompt and images, for the estimate of training tokens"
    )
    answer_tokens: int | None = Field(
        default=None, ge=1, description="mean tokens of an answer, for the estimate of training tokens"
    )


class LaunchSpec(Config):
    """GPUs (cards) of one job of each kind, in the scripts of `--launch slurm` and `skypilot`.

    A job of several cards runs in as many processes, which `accelerate launch` starts.
    """

    train: int = Field(default=1, ge=1, description="cards of one training")
    pairs: int = Field(default=1, ge=1, description="cards of one build of pairs with a model")
    eval: int = Field(default=1, ge=1, description="cards of one evaluation")
