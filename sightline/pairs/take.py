"""Some of the rows of a directory of pairs or of samples, so that arms of a study get equal numbers of them.

The first ones, or by a seed random ones, in the order that they had. It makes and judges no rows.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import Field

from sightline.config import Config, Seed
from sightline.data.images import adopt_image
from sightline.data.preference_dataset import PAIRS, read_pairs, write_preference_dataset
from sightline.data.samples import SAMPLES, read_samples, samples_file, write_samples
from sightline.errors import InputError
from sightline.records import Pair, Sample, write_rows
from sightline.records.manifest import Manifest, Stage

R = TypeVar("R", Pair, Sample)


class TakeConfig(Config):
    """How many rows, and which: the first ones where `random_seed` is left out."""

    count: int = Field(ge=1)
    random_seed: Seed | None = None


def take_rows(source: Path, config: TakeConfig, out: Path) -> Manifest:
    """Write `count` rows of the directory `source` to `out`, images with them; what `source` held is what `out` holds.

    Raises:
        InputError: `source` has fewer rows, or is no directory of pairs or samples, or unfinished.
    """
    kind = "samples" if samples_file(source).name == SAMPLES else "pairs"
    stage = Stage.open(out, f"{kind} take", config, {kind: source})
    if stage.done:
        return stage.manifest
    folder = samples_file(source).parent
    if kind == "samples":
        write_samples(out, _chosen(read_samples(source), _places(source, kind, config), folder, out))
    else:
        write_rows(out / PAIRS, _chosen(read_pairs(source), _places(source, kind, config), folder, out))
        write_preference_dataset(out)
    return stage.finish(counts={kind: config.count})


def _places(source: Path, kind: str, config: TakeConfig) -> frozenset[int]:
    """The numbers of the rows to take, from 0."""
    total = sum(1 for _ in (read_samples if kind == "samples" else read_pairs)(source))
    if total < config.count:
        raise InputError(f"{source} holds {total} {kind} and {config.count} are to be taken; make more, or take fewer")
    if config.random_seed is None:
        return frozenset(range(config.count))
    drawn = np.random.default_rng(config.random_seed).choice(total, config.count, replace=False)
    return frozenset(int(place) for place in drawn)


def _chosen(rows: Iterator[R], places: frozenset[int], folder: Path, out: Path) -> Iterator[R]:
    for place, row in enumerate(rows):
        if place in places:
            for image in row.images:
                adopt_image(folder, image, out, str(out))
            yield row
