"""The run context shared by builders, judges and writers: folders, a seed, and the model to align."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.errors import InputError
from sightline.models.requests import GenerateRequest, Generation, Sampling
from sightline.models.vlm import VLM

TOO_LONG = "too long for the model"


@dataclass(frozen=True)
class RunContext:
    """Inputs of a builder, a judge or a writer besides its config.

    Image paths of samples are relative to `folder`; corrupted images may be stored in `scratch`. `policy` is the model
    to align, None if no builder needs one. `answering` samples whole answers of the policy on another engine, such as a
    server; None in its result is a failed answer.
    """

    folder: Path
    scratch: Path
    seed: int
    policy: VLM | None = None
    answering: Callable[[Sequence[GenerateRequest], Sampling], list[Generation | None]] | None = None

    @property
    def vlm(self) -> VLM:
        """The policy, for callers that require one.

        Raises:
            InputError: the command has no model.
        """
        if self.policy is None:
            raise InputError("this needs a model; name one with --model")
        return self.policy
