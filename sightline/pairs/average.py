"""Two directories of pairs on the same prompts and chosen answers -> one with two rejected answers a row.

For averaged DPO (arXiv 2407.02477, eq. 5), such as external rejected answers together with those of BDHS.
"""

from collections.abc import Iterator
from pathlib import Path

from sightline.config import Config
from sightline.data.images import adopt_image
from sightline.data.preference_dataset import PAIRS, read_pairs, write_preference_dataset
from sightline.errors import InputError
from sightline.records import Pair, hash_json, write_rows
from sightline.records.manifest import Manifest, Stage


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
