"""The steps of `sightline match` from samples to samples, by name, for studies and the command line.

A step is a stage with a place, a config, a seed and an output directory. To add one, write its file and its entry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sightline.config import Config
from sightline.data.terminal import Progress
from sightline.records import Manifest

#: A step's function: place, config, seed, out, progress -> manifest.
Run = Callable[[Path, Any, int, Path, Progress | None], Manifest]


@dataclass(frozen=True)
class Step:
    """A step by the location of its parts, imported on demand; `place` describes its input."""

    module: str
    config_name: str
    run_name: str
    place: str
    help: str

    @property
    def config(self) -> type[Config]:
        """The class of its config."""
        found: type[Config] = getattr(import_module(self.module), self.config_name)
        return found

    @property
    def run(self) -> Run:
        """The stage."""
        found: Run = getattr(import_module(self.module), self.run_name)
        return found


STEPS: dict[str, Step] = {
    "read": Step(
        "sightline.recipes.matching.entities.reading",
        "ReadConfig",
        "read_entities",
        "Folder of Deepmatcher's or WDC's files, or a CSV file of labeled pairs.",
        "Read one split of labeled pairs as samples that ask whether two records match.",
    ),
    "explain": Step(
        "sightline.recipes.matching.explaining",
        "ExplainConfig",
        "explain",
        "Samples of `match read`.",
        "Add explanations to the references: long, short or structured.",
    ),
    "filter": Step(
        "sightline.recipes.matching.filtering",
        "FilterConfig",
        "filter_pairs",
        "Samples of `match read`.",
        "Keep pairs whose label a model reproduces, or that it finds worth learning from.",
    ),
    "generate": Step(
        "sightline.recipes.matching.generating",
        "GenerateConfig",
        "generate_pairs",
        "Samples of `match read`.",
        "Let a model generate new pairs: for each, one that matches and three that do not.",
    ),
    "select": Step(
        "sightline.recipes.matching.selecting",
        "SelectConfig",
        "select_pairs",
        "Samples that were trained on.",
        "Add the pairs of a pool that are most similar to those that a model gets wrong.",
    ),
}
