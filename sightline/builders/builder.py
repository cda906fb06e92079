"""What every builder of pairs is: a config, a function from samples to what was made of each, and what it works with.

`registry` knows their names, `build` is the stage around any of them. A builder is one file. It yields one
`BuildResult` a sample, so that a sample with several pairs, or none, is resumed as a whole and its cost is counted.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from pydantic import Field

from sightline.config import Config
from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.models.context import RunContext
from sightline.models.requests import Sampling
from sightline.records import Pair, Row, Sample

C = TypeVar("C", bound=Config)
T = TypeVar("T")


class BuildResult(Row):
    """What a builder made of one sample: its pairs, or else why there is none, and what that took.

    `tallies` are numbers such as tokens and calls; the manifest has their sums, and for names that begin with `share_`
    their means over the samples that have one. A sample that was not tried (too long, no picture) has none.
    """

    sample_id: str
    pairs: tuple[Pair, ...] = ()
    dropped: str = ""
    tallies: dict[str, float] = Field(default_factory=dict)


def always(config: Config) -> bool:
    """Whatever the config: yes."""
    return True


def never(config: Config) -> bool:
    """Whatever the config: no."""
    return False


@dataclass(frozen=True)
class Builder(Generic[C]):
    """A builder by its parts. `build` may take samples in any order and groups; a row depends on (sample, seed) alone.

    `needs_reference` says of a config whether samples must have one. `gather` brings samples together that a row is
    made of, such as all about one picture, before anything else is done with them. `summary` is one line with its
    source; `remedy` says what to try where no pair is left.
    """

    name: str
    summary: str
    config: type[C]
    build: Callable[[Iterable[Sample], RunContext, C], Iterator[BuildResult]]
    needs_model: bool = True
    needs_reference: Callable[[C], bool] = never
    gather: Callable[[Iterable[Sample]], Iterator[Sample]] | None = None
    remedy: str = "change the builder's settings"


class SampledConfig(Config):
    """How a builder lets a model write; papers mostly say no more than "sampled"."""

    temperature: float = Field(default=1.0, ge=0, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=256, gt=0, description="limit of one generated text")
    batch_size: int = Field(default=64, gt=0, description="rows generated together")
    wave: int = Field(default=64, gt=0, description="samples in flight")
    autocast: bool = Field(default=False, description="bfloat16 autocast while generating")

    def sampling(self, stop: tuple[str, ...] = ()) -> Sampling:
        """The same in the terms of the models room."""
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, stop)


def batched(samples: Iterable[T], size: int) -> Iterator[list[T]]:
    """The samples in lists of at most `size`, read as they are needed."""
    source = iter(samples)
    while wave := list(islice(source, size)):
        yield wave


def sample_rng(seed: int, sample: Sample, *purpose: int) -> np.random.Generator:
    """A random stream of (seed, purpose, sample) and of nothing else."""
    number = int.from_bytes(hashlib.sha256(sample.id.encode()).digest()[:8], "little")
    return np.random.default_rng([seed, *purpose, number])


def require_reference(sample: Sample) -> str:
    """The sample's reference answer without white space around it.

    Raises:
        InputError: it has none.
    """
    reference = (sample.reference or "").strip()
    if not reference:
        raise InputError(
            f"sample {shorten(sample.id)} has no reference, and this builder needs one; write it or drop the row"
        )
    return reference


def make_pair(
    sample: Sample,
    builder: str,
    chosen: str,
    rejected: str,
    *,
    provenance: Mapping[str, object],
    suffix: str = "",
    **fields: object,
) -> Pair:
    """A pair on a sample's prompt; `suffix` tells several pairs of one sample apart, `fields` are further ones.

    `provenance` is what the builder tells of it; what the sample was and its truth, if it has one, are added, so that
    pairs can be samples again.
    """
    known = {"task": sample.task} | ({"truth": sample.truth} if sample.truth else {})
    return Pair.model_validate(
        {
            "id": f"{sample.id}/{builder}{suffix}",
            "images": sample.images,
            "media": sample.media,
            "history": sample.history,
            "prompt": sample.prompt,
            "chosen": chosen.strip(),
            "rejected": rejected.strip(),
            "builder": builder,
            "cluster": sample.cluster,
            "provenance": {**provenance, **known},
            **fields,
        }
    )
