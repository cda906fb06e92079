"""Directories of pairs -> one: the shards of a builder, or what several builders made."""

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path

from sightline.config import Config
from sightline.data.images import adopt_image
from sightline.data.preference_dataset import PAIRS, read_pairs, write_preference_dataset
from sightline.errors import InputError
from sightline.records import Pair, write_rows
from sightline.records.manifest import Manifest, Stage


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
