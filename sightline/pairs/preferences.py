"""Where the wishes come from by which `conditioned` turns the label of a pair: a list of your own, or the lab's.

A `Contrast` is two wishes that contradict each other; nothing here knows an answer or a tier.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from sightline.config import Config
from sightline.records import Sample


@dataclass(frozen=True)
class Contrast:
    """Two wishes that no answer can both follow, in words; `name` is what they are about."""

    name: str
    wanted: str
    against: str


Propose = Callable[[Sample, np.random.Generator], Contrast | None]


class ContrastConfig(Config):
    """Two opposite wishes, each in some wordings. With given answers `wanted` is what chosen ones are like."""

    name: str
    wanted: tuple[str, ...] = Field(min_length=1)
    against: tuple[str, ...] = Field(min_length=1)


class ListedConfig(Config):
    """Wishes of your own; each sample is given one of the contrasts by chance."""

    name: Literal["listed"]
    contrasts: tuple[ContrastConfig, ...] = Field(min_length=1)

    def open(self) -> Propose:
        """The function that proposes."""

        def propose(_: Sample, rng: np.random.Generator) -> Contrast | None:
            one = self.contrasts[int(rng.integers(len(self.contrasts)))]
            texts = (side[int(rng.integers(len(side)))] for side in (one.wanted, one.against))
            return Contrast(one.name, *texts)

        return propose


class LabConfig(Config):
    """The embedded lab's wishes, which its oracle can check."""

    name: Literal["lab"]

    def open(self) -> Propose:
        """The function that proposes, by import path, since the lab is imported by no other room."""
        propose: Propose = import_module("sightline.lab.preferences").contrast_of
        return propose


PreferencesConfig = Annotated[ListedConfig | LabConfig, Field(discriminator="name")]
