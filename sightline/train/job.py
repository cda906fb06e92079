"""What a run is asked to do: the arguments of the command, and where it computes.

It opens nothing; `preparation` puts a run together of it, and `run` does that run.
"""

from dataclasses import dataclass, field
from pathlib import Path

from sightline.errors import InputError
from sightline.train.config import TrainConfig
from sightline.train.processes import Processes

VIEWS = "views"  # the folder of a run's weakened pictures


@dataclass(frozen=True)
class Job:
    """What a run is asked to do, the arguments of the command, and the processes that do it.

    Weakened pictures are kept under `out`.
    """

    model: Path
    pairs: Path | None
    out: Path
    config: TrainConfig
    seed: int
    samples: Path | None = None
    processes: Processes = field(default_factory=Processes)

    @property
    def prompts(self) -> Path:
        """Where the prompts of a run by rewards are.

        Raises:
            InputError: nowhere.
        """
        place = self.samples or self.pairs
        if place is None:
            raise InputError("there are no prompts to train on; name samples with --samples, or pairs with --pairs")
        return place

    @property
    def inputs(self) -> dict[str, Path]:
        """What decides the result beside the config, by name."""
        named = {"model": self.model, "pairs": self.pairs, "samples": self.samples, "start": self.config.start}
        further = {f"reference-{number}": path for number, path in enumerate(self.config.references, 1)}
        return {name: path for name, path in named.items() if path is not None} | further
