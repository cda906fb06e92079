"""The run context shared by builders, judges and writers: folders, a seed, and the model to align."""

from dataclasses import dataclass
from pathlib import Path

from sightline.errors import InputError
from sightline.models.generator import Generator, ModelGenerator
from sightline.models.vlm import VLM

TOO_LONG = "too long for the model"


@dataclass(frozen=True)
class RunContext:
    """Inputs of a builder, a judge or a writer besides its config.

    Image paths of samples are relative to `folder`; corrupted images may be stored in `scratch`. `policy` is the model
    to align, None if no builder needs one. `server` samples whole answers of the policy elsewhere than in this process.
    """

    folder: Path
    scratch: Path
    seed: int
    policy: VLM | None = None
    server: Generator | None = None

    @property
    def vlm(self) -> VLM:
        """The policy, for callers that require one.

        Raises:
            InputError: the command has no model.
        """
        if self.policy is None:
            raise InputError("this needs a model; name one with --model")
        return self.policy

    def generator(self, *, batch_size: int, autocast: bool) -> Generator:
        """Whoever samples whole answers of the policy: the server, else the policy itself in this process.

        Raises:
            InputError: there is neither.
        """
        return self.server or ModelGenerator(self.vlm, batch_size=batch_size, autocast=autocast)
