"""Some of the rows of a directory of pairs or of samples, so that arms of a study get equal numbers of them.

The first ones, or by a seed random ones, in the order that they had. It makes and judges no rows.
"""

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import Field

from sightline.config import Config, Seed
from sightline.data.images import adopt_image
from sightline.data.preference_dataset import PAIRS, read_pairs, write_preference_dataset
from sightline.data.samples import SAMPLES, read_samples, samples_file, write_samples
from sightline.errors import InputError
from sightline.records import Pair, Sample, hash_json, write_rows
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


class _Merge(Config):
    """A merge has no settings."""


def merge_datasets(parts: Sequence[Path], out: Path) -> Manifest:
    """Write all pairs of `parts` to `out` in the order of their ids; the parts stay as they are.

    Raises:
        InputError: fewer than one part, a part that is no directory of pairs or is unfinished, an id twice, two
            different images of one name.
    """
    if not parts:
        raise InputError("name at least one directory of pairs")
    stage = Stage.open(out, "pairs merge", _Merge(), {f"part_{number}": part for number, part in enumerate(parts)})
    if stage.done:
        return stage.manifest
    for part in parts:
        for image in dict.fromkeys(image for pair in read_pairs(part) for image in pair.images):
            adopt_image(part, image, out, str(out))
    # Each part is in the order of ids already; an id that two of them have is found when the rows are read again.
    rows: Iterator[Pair] = heapq.merge(*map(read_pairs, parts), key=lambda pair: pair.id)
    count = write_rows(out / PAIRS, rows)
    write_preference_dataset(out)
    return stage.finish(counts={"pairs": count})


class _Average(Config):
    """An average has no settings: gamma belongs to the loss."""


def average_datasets(first: Path, second: Path, out: Path) -> Manifest:
    """Write the pairs of `first`, each with the rejected answer that `second` has for the same prompt and chosen one.

    Pairs without a partner are dropped and counted. Memory holds the rejected answers of `second`.

    Raises:
        InputError: a directory that holds no pairs or is unfinished, or no pair of the one has a partner in the other.
    """
    stage = Stage.open(out, "pairs average", _Average(), {"first": first, "second": second})
    if stage.done:
        return stage.manifest
    partners = {_key(pair): (pair.rejected, pair.builder) for pair in read_pairs(second)}
    count = write_rows(out / PAIRS, _joined(first, out, partners))
    if not count:
        raise InputError(f"no pair of {first} has one of the same prompt and chosen answer in {second}")
    write_preference_dataset(out)
    total = sum(1 for _ in read_pairs(first))
    dropped = {"no partner": total - count} if total > count else {}
    return stage.finish(counts={"pairs": count}, dropped=dropped)


def _joined(first: Path, out: Path, partners: dict[str, tuple[str, str]]) -> Iterator[Pair]:
    for pair in read_pairs(first):
        if (found := partners.get(_key(pair))) is not None:
            for image in pair.images:
                adopt_image(first, image, out, str(out))
            provenance = {**pair.provenance, "second_builder": found[1]}
            yield pair.model_copy(update={"second_rejected": found[0], "provenance": provenance})


def _key(pair: Pair) -> str:
    """The same images, conversation and chosen answer."""
    told = [turn.model_dump() for turn in pair.history]
    return hash_json([pair.images, told, pair.prompt, pair.chosen])
