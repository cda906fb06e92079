"""What builders, judges and writers work with beside their own config: folders, a seed, and the model to align."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.errors import InputError
from sightline.models.requests import GenerateRequest, Generation, Sampling
from sightline.models.vlm import VLM

TOO_LONG = "too long for the model"


@dataclass(frozen=True)
class RunContext:
    """What a builder, a judge and a writer work with beside their config.

    Image paths of samples are relative to `folder`; weakened pictures may be kept in `scratch`. `policy` is the model
    that is to be aligned, None where no builder asked for one. `answering` is how whole answers of the policy are
    sampled where that is not done by the policy itself; None stands for one that failed.
    """

    folder: Path
    scratch: Path
    seed: int
    policy: VLM | None = None
    answering: Callable[[Sequence[GenerateRequest], Sampling], list[Generation | None]] | None = None

    @property
    def vlm(self) -> VLM:
        """The policy, for those who need one.

        Raises:
            InputError: the command was given none.
        """
        if self.policy is None:
            raise InputError("this needs a model; name one with --model")
        return self.policy
