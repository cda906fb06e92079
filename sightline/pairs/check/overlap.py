"""Which rows meet a benchmark: by picture (bytes, or hashes that survive another size), by COCO id, by question."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.data.coco import coco_id
from sightline.data.texts import digest, normalize
from sightline.errors import InputError
from sightline.pairs.check.benchmark_files import Against
from sightline.pairs.check.columns import Images, Rows, integers, numbers
from sightline.pairs.check.near import U64, Ints, Likeness, links
from sightline.pairs.check.pictures import Look

_TOGETHER = 256  # pictures looked at between two of which nothing is kept
LookAll = Callable[[Sequence[Path | bytes]], Iterable[Look]]
Found = tuple[int, str, str, str]


@dataclass
class Index:
    """What is known of a benchmark: its pictures, which may be COCO ids alone, and digests of its questions."""

    name: str
    images: Images = field(default_factory=Images)
    coco: set[int] = field(default_factory=set)
    questions: set[int] = field(default_factory=set)
    unreadable: int = 0


def index(against: Against, look_all: LookAll) -> Index:
    """Read a benchmark once.

    Raises:
        InputError: a list that cannot be read, or nothing in it to compare with.
    """
    made = Index(against.name)
    seen: set[Path] = set()
    waiting: list[Path] = []
    for item in against.items():
        if item.question.strip():
            made.questions.add(digest(normalize(item.question)))
        if number := coco_id(item.name):
            made.coco.add(number)
        if item.path is not None and item.path not in seen:
            seen.add(item.path)
            waiting.append(item.path)
        if len(waiting) == _TOGETHER:
            _add(made, look_all(waiting))
            waiting = []
    _add(made, look_all(waiting))
    if not (len(made.images) or made.coco or made.questions):
        raise InputError(f"benchmark {against.name} has neither pictures nor questions; name another")
    return made


def find_overlap(rows: Rows, images: Images, made: Index, like: Likeness) -> Iterator[Found]:
    """(row, check, benchmark, reason) of all that meets the benchmark."""
    places, owners, flat = integers(rows.number), rows.owners(), integers(rows.image)
    same = np.isin(numbers(images.digest), numbers(made.images.digest)) & (integers(images.opens) > 0)
    alike = _alike(images, made.images, like)
    coco = np.isin(integers(images.coco), np.array(sorted(made.coco), np.int64))
    for check, hit, reason in (
        ("overlap-image", same, "the same file"),
        ("overlap-alike", alike & ~same, "looks the same"),
        ("overlap-coco", coco, "the same COCO id"),
    ):
        for row in np.unique(owners[hit[flat]]):
            yield int(places[row]), check, made.name, reason
    asked = np.isin(numbers(rows.question), np.array(sorted(made.questions), np.uint64))
    for row in np.flatnonzero(asked):
        yield int(places[row]), "overlap-question", made.name, "the same question"


def _add(made: Index, looks: Iterable[Look]) -> None:
    for look in looks:
        if look.opens:
            made.images.add(look, 0)
        else:
            made.unreadable += 1


def _alike(images: Images, others: Images, like: Likeness) -> NDArray[np.bool_]:
    """Which images look like one of the others."""
    ours, back = _unique(images)
    theirs, _ = _unique(others)
    both = np.concatenate([ours, theirs])
    hit = np.zeros(len(ours), bool)
    for one, other in links(both[:, 0], like, confirming=both[:, 1]):
        first, second = np.minimum(one, other), np.maximum(one, other)
        hit[first[(first < len(ours)) & (second >= len(ours))]] = True
    found = np.zeros(len(images), bool)
    found[integers(images.hashed) > 0] = hit[back]
    return found


def _unique(images: Images) -> tuple[U64, Ints]:
    """The different (pHash, dHash) of images that have them, and which of them each of those images has."""
    hashed = integers(images.hashed) > 0
    table = np.stack([numbers(images.phash)[hashed], numbers(images.dhash)[hashed]], axis=1)
    if not len(table):
        return table, np.zeros(0, np.int64)
    unique, back = np.unique(table, axis=0, return_inverse=True)
    return unique, back.reshape(-1)
