"""Dataset operations: take some rows of samples or pairs, merge pair datasets, average two of them.

Taken rows keep their order; a seed makes the choice random. Study arms use it to get equal numbers of rows.
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
    """Number of rows to take: the first ones unless `random_seed` is set."""

    count: int = Field(ge=1, description="rows to take")
    random_seed: Seed | None = Field(default=None, description="seed of a random draw; null: the first rows")


def take_rows(source: Path, config: TakeConfig, out: Path) -> Manifest:
    """Write `count` rows of the directory `source` to `out`, with their images; samples stay samples, pairs stay pairs.

    Raises:
        InputError: `source` has fewer rows, is unfinished, or is not a directory of pairs or samples.
    """
    kind = "samples" if samples_file(source).name == SAMPLES else "pairs"
    stage = Stage.open(out, f"{kind} take", config, {kind: source})
    if stage.done:
        return stage.manifest
    folder = samples_file(source).parent
    if kind == "samples":
        write_samples(out, _select(read_samples(source), _row_numbers(source, kind, config), folder, out))
    else:
        write_rows(out / PAIRS, _select(read_pairs(source), _row_numbers(source, kind, config), folder, out))
        write_preference_dataset(out)
    return stage.finish(counts={kind: config.count})


def _row_numbers(source: Path, kind: str, config: TakeConfig) -> frozenset[int]:
    """Return the numbers of the rows to take, from 0."""
    total = sum(1 for _ in (read_samples if kind == "samples" else read_pairs)(source))
    if total < config.count:
        raise InputError(f"{source} holds {total} {kind}, but count is {config.count}; build more, or take fewer")
    if config.random_seed is None:
        return frozenset(range(config.count))
    drawn = np.random.default_rng(config.random_seed).choice(total, config.count, replace=False)
    return frozenset(int(place) for place in drawn)


def _select(rows: Iterator[R], places: frozenset[int], folder: Path, out: Path) -> Iterator[R]:
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
        InputError: no part is named, a part is unfinished or not a directory of pairs, an id occurs twice, or two
            different
            images share a name.
    """
    if not parts:
        raise InputError("name at least one directory of pairs")
    stage = Stage.open(out, "pairs merge", _Merge(), {f"part_{number}": part for number, part in enumerate(parts)})
    if stage.done:
        return stage.manifest
    for part in parts:
        for image in dict.fromkeys(image for pair in read_pairs(part) for image in pair.images):
            adopt_image(part, image, out, str(out))
    # Each part is sorted by id; an id in two parts is found when the rows are read again.
    rows: Iterator[Pair] = heapq.merge(*map(read_pairs, parts), key=lambda pair: pair.id)
    count = write_rows(out / PAIRS, rows)
    write_preference_dataset(out)
    return stage.finish(counts={"pairs": count})


class _Average(Config):
    """An average has no settings: gamma belongs to the loss."""


def average_datasets(first: Path, second: Path, out: Path) -> Manifest:
    """Write the pairs of `first`, each with the rejected answer of `second` for the same prompt and chosen answer.

    Pairs without a partner are dropped and counted. Memory holds the rejected answers of `second`.

    Raises:
        InputError: a directory is unfinished or holds no pairs, or no pair has a partner.
    """
    stage = Stage.open(out, "pairs average", _Average(), {"first": first, "second": second})
    if stage.done:
        return stage.manifest
    partners = {_pair_key(pair): (pair.rejected, pair.builder) for pair in read_pairs(second)}
    count = write_rows(out / PAIRS, _join(first, out, partners))
    if not count:
        raise InputError(f"no pair of {first} has a partner with the same prompt and chosen answer in {second}")
    write_preference_dataset(out)
    total = sum(1 for _ in read_pairs(first))
    dropped = {"no partner": total - count} if total > count else {}
    return stage.finish(counts={"pairs": count}, dropped=dropped)


def _join(first: Path, out: Path, partners: dict[str, tuple[str, str]]) -> Iterator[Pair]:
    for pair in read_pairs(first):
        if (found := partners.get(_pair_key(pair))) is not None:
            for image in pair.images:
                adopt_image(first, image, out, str(out))
            provenance = {**pair.provenance, "second_builder": found[1]}
            yield pair.model_copy(update={"second_rejected": found[0], "provenance": provenance})


def _pair_key(pair: Pair) -> str:
    """Hash of images, conversation and chosen answer."""
    turns = [turn.model_dump() for turn in pair.history]
    return hash_json([pair.images, turns, pair.prompt, pair.chosen])
