"""What a study's config says of machines: the speed of another one, for estimates, and cards, for launch scripts.

None of it affects results or the keys of jobs.
"""

from pydantic import Field

from sightline.config import Config


class RatesSpec(Config):
    """Approximate seconds per unit on a `device`, stated by the user, for an estimate on another machine.

    `row` is by builder (or `samples`, `layout`, `take`), `example` by training source (`offline`, `online`, `bdhs`,
    `mixed`, `rl`), `answer` by benchmark; `other` is the default.
    """

    device: str
    row: dict[str, float] = Field(default_factory=dict)
    example: dict[str, float] = Field(default_factory=dict)
    answer: dict[str, float] = Field(default_factory=dict)
    prefix_tokens: int | None = Field(default=None, ge=1)
    answer_tokens: int | None = Field(default=None, ge=1)


class LaunchSpec(Config):
    """GPUs (cards) of one job of each kind, in the scripts of `--launch slurm` and `skypilot`.

    A job of several cards runs in as many processes, which `accelerate launch` starts.
    """

    train: int = Field(default=1, ge=1, description="cards of one training")
    pairs: int = Field(default=1, ge=1, description="cards of one build of pairs with a model")
    eval: int = Field(default=1, ge=1, description="cards of one evaluation")
