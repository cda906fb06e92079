"""The weights of a merge, searched for on validation samples: every combination of a few values is tried.

What it goes by is the mean over samples of the reference answer's log-prob by token: what the members were trained for,
smooth, and one pass a combination. Nothing is written here.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sightline.data.samples import read_samples, samples_file
from sightline.errors import InputError
from sightline.models.compose.config import SearchConfig
from sightline.models.prompts import Scored, prefix_of
from sightline.models.scorer import flat_logps
from sightline.models.vlm import VLM, evaluating


@dataclass(frozen=True)
class Try:
    """One combination of weights, and its mean log-prob (nats a token)."""

    weights: tuple[float, ...]
    logp: float

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def read_references(config: SearchConfig) -> list[Scored]:
    """The validation samples as prefixes with their reference answer.

    Raises:
        InputError: no samples, or one without a reference.
    """
    folder = samples_file(config.samples).parent.absolute()
    rows = islice(read_samples(config.samples, require_reference=True), config.limit)
    items = [Scored(prefix_of(row, folder), (row.reference or "",)) for row in rows]
    if not items:
        raise InputError(f"search.samples: {config.samples} holds no samples; make some first")
    return items


def mean_logp(vlm: VLM, items: Sequence[Scored], batch_size: int) -> float:
    """The mean over items of the mean log-prob (nats) of their answer's tokens."""
    total = 0.0
    with evaluating(vlm):
        for start in range(0, len(items), batch_size):
            values, mask = flat_logps(vlm, items[start : start + batch_size])
            total += float((values.double().sum(-1) / mask.sum(-1)).sum())
    return total / len(items)


def tries(
    config: SearchConfig, count: int, merged: Callable[[tuple[float, ...]], VLM], items: Sequence[Scored]
) -> Iterator[Try]:
    """Every combination for `count` adapters, in order, as it is done; `merged` gives the model of its weights."""
    for weights in itertools.product(config.values, repeat=count):
        yield Try(weights, mean_logp(merged(weights), items, config.batch_size))


def best(tried: Sequence[Try]) -> Try:
    """The one with the greatest log-prob; of equals the first."""
    return max(tried, key=lambda one: one.logp)


def inputs_of(config: SearchConfig | None) -> dict[str, Path]:
    """What a search reads, for the manifest."""
    return {} if config is None else {"validation": config.samples}
