"""The builder interface: a config, and a function that turns samples into one `BuildResult` each.

`registry` lists builders by name; `build` is the stage around any of them. One result per sample means that a sample
with several pairs, or none, is resumed as a whole and its cost is counted.
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
    """A builder's result for one sample: its pairs, or the reason why there is none, and the cost.

    `tallies` are numbers such as tokens and calls; the manifest holds their sums, and for names that begin with
    `share_` their means over the samples that have one. A sample that was not tried (too long, no image) has none. An
    `unfinished` result is not kept: a server failed, and the next run tries the sample again.
    """

    sample_id: str
    pairs: tuple[Pair, ...] = ()
    dropped: str = ""
    tallies: dict[str, float] = Field(default_factory=dict)
    unfinished: bool = Field(default=False, exclude=True)


def always(config: Config) -> bool:
    """Return True for any config."""
    return True


def never(config: Config) -> bool:
    """Return False for any config."""
    return False


@dataclass(frozen=True)
class Builder(Generic[C]):
    """A builder's parts. `build` may take samples in any order and groups; a row depends on (sample, seed) alone.

    `needs_reference` tells whether a config needs samples with references. `gather` regroups samples before the build,
    such as all about one image. `summary` is one line with its source; `remedy` is the advice of the error when no pair
    is left.
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
    """Sampling settings of a builder; papers mostly say no more than "sampled"."""

    temperature: float = Field(default=1.0, ge=0, description="0 is greedy")
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="nucleus sampling: sample from the likeliest tokens whose probabilities sum to this; 1: from all "
        "tokens",
    )
    max_new_tokens: int = Field(default=256, gt=0, description="maximum tokens per generated text")
    batch_size: int = Field(default=64, gt=0, description="rows generated together")
    wave: int = Field(default=64, gt=0, description="samples in flight")
    autocast: bool = Field(default=False, description="bfloat16 autocast while generating")

    def sampling(self, stop: tuple[str, ...] = ()) -> Sampling:
        """Return the settings as the sampler's `Sampling`."""
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, stop)


def batched(samples: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the samples in lists of at most `size`, read as needed."""
    source = iter(samples)
    while wave := list(islice(source, size)):
        yield wave


def sample_rng(seed: int, sample: Sample, *purpose: int) -> np.random.Generator:
    """Return a random stream that depends on (seed, purpose, sample) alone."""
    number = int.from_bytes(hashlib.sha256(sample.id.encode()).digest()[:8], "little")
    return np.random.default_rng([seed, *purpose, number])


def require_reference(sample: Sample) -> str:
    """Return the sample's reference answer without surrounding white space.

    Raises:
        InputError: it has none.
    """
    reference = (sample.reference or "").strip()
    if not reference:
        raise InputError(
            f"sample {shorten(sample.id)} has no reference, and this builder needs one; add it or remove the row"
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
    """Make a pair from a sample's prompt; `suffix` distinguishes several pairs of one sample, `fields` are extra
    columns.

    The sample's task and truth, if any, are added to the builder's `provenance`, so that pairs can be samples again.
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
