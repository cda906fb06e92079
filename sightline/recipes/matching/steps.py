"""The steps of `sightline match` from samples to samples, by name: what a study and the command line know them by.

A step is a stage: it takes a place, a config, a seed and a directory to write. To add one, write its file and its line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sightline.config import Config
from sightline.data.terminal import Progress
from sightline.records import Manifest

#: What a step is: place, config, seed, out, progress -> manifest.
Run = Callable[[Path, Any, int, Path, Progress | None], Manifest]


@dataclass(frozen=True)
class Step:
    """A step by where its parts are, imported when it is asked for; `place` says what it takes."""

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
        "Folder of Deepmatcher's or WDC's files, or a CSV file of labelled pairs.",
        "Read one split of labelled pairs as samples that ask whether two records match.",
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
        "Let a model invent further pairs: one that matches and three that do not for each.",
    ),
    "select": Step(
        "sightline.recipes.matching.selecting",
        "SelectConfig",
        "select_pairs",
        "Samples that were trained on.",
        "Add the pairs of a pool that are most like those that a model gets wrong.",
    ),
}
