"""Compact facts about all rows and images, a few bytes each, in growable arrays: the input of cross-row comparisons.

`scan` fills them; `repeats` and `overlap` read them.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sightline.check.image_facts import ImageFacts

_SHINGLE = 5  # characters
_MOST = 20_000  # characters per text that enter its sketch
_rng = np.random.default_rng(0)
_FACTORS = (_rng.integers(0, 2**31, size=128, dtype=np.uint32) * np.uint32(2) + np.uint32(1))[:, None]
_TERMS = _rng.integers(0, 2**32, size=128, dtype=np.uint32)[:, None]
_POWERS = np.array([1_000_003**power % 2**32 for power in range(_SHINGLE)], dtype=np.uint32)
_MIXER = np.uint32(0x9E3779B1)  # golden ratio, as in Knuth's multiplicative hashing


def sketch(parts: Sequence[str]) -> tuple[int, int]:
    """Return two 64-bit sketches, close for similar texts; the same shingle hashes differently in each part."""
    hashed = [_shingles(part, number) for number, part in enumerate(parts)]
    shingles = np.concatenate(hashed) if hashed else np.zeros(0, np.uint32)
    if not len(shingles):
        return 0, 0
    least = (_FACTORS * shingles + _TERMS).min(axis=1)
    bits = (least * _MIXER) >> np.uint32(31)
    first, second = np.packbits(bits.astype(np.uint8)).view(np.uint64)
    return int(first), int(second)


def _shingles(text: str, part: int) -> NDArray[np.uint32]:
    """Hash every run of five characters; a shorter text is padded."""
    raw = text[:_MOST].ljust(_SHINGLE).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(raw, dtype=np.uint32)
    hashed = np.zeros(len(codes) - _SHINGLE + 1, dtype=np.uint32)
    for offset, power in enumerate(_POWERS):
        hashed += codes[offset : len(hashed) + offset] * power
    hashed = (hashed ^ np.uint32(part * 0x5BD1E995 & 0xFFFFFFFF)) * _MIXER
    result: NDArray[np.uint32] = hashed ^ (hashed >> np.uint32(15))
    return result


U64 = NDArray[np.uint64]
Ints = NDArray[np.int64]
Links = tuple[Ints, Ints]
_BITS = 64
#: Neighbors that each number is compared with in band order; only bands shared by more are cut short.
_WINDOW = 2_000


@dataclass(frozen=True)
class Likeness:
    """Two items of one group are alike if they differ in at most `distance` bits, and in at most `confirm` of the
    second hash.
    """

    distance: int
    confirm: int = _BITS


def similar_pairs(
    keys: U64, like: Likeness, groups: Ints | None = None, confirming: U64 | None = None
) -> Iterator[Links]:
    """Yield index pairs of similar items in parts of bounded size; a pair may occur twice.

    Of items that are equal in all respects only the first is compared; the others are paired with it.
    """
    zeros = np.zeros(len(keys), np.uint64)
    second = zeros if confirming is None else confirming
    owners = zeros.astype(np.int64) if groups is None else groups
    if not len(keys):
        return
    order = np.lexsort((np.arange(len(keys)), second, keys, owners))
    columns = (keys[order], second[order], owners[order])
    is_first = np.ones(len(order), bool)
    is_first[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    first = order[np.flatnonzero(is_first)[np.cumsum(is_first) - 1]]
    yield first[~is_first], order[~is_first]
    unique = order[is_first]
    for band in _bands(like.distance):
        in_order = unique[np.lexsort((keys[unique], keys[unique] & band, owners[unique]))]
        for i, j in _neighbors(keys[in_order] & band, owners[in_order]):
            one, other = in_order[i], in_order[j]
            close = np.bitwise_count(keys[one] ^ keys[other]) <= like.distance
            close &= np.bitwise_count(second[one] ^ second[other]) <= like.confirm
            yield one[close], other[close]


def component_labels(count: int, parts: Iterable[Links]) -> Ints:
    """Return, for each of `count` items, the smallest index of its connected component."""
    labels = np.arange(count)
    waiting: list[Links] = []
    for part in parts:
        waiting.append(part)
        if sum(len(one) for one, _ in waiting) > count + 1_000_000:
            labels, waiting = _merge_labels(labels, waiting), []
    return _merge_labels(labels, waiting)


def _merge_labels(labels: Ints, parts: list[Links]) -> Ints:
    count = len(labels)
    one = np.concatenate([np.arange(count), *(part[0] for part in parts)])
    other = np.concatenate([labels, *(part[1] for part in parts)])
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(count, count))
    _, found = connected_components(graph, directed=False)
    smallest = np.full(count, count, np.int64)
    np.minimum.at(smallest, found, np.arange(count))
    result: Ints = smallest[found]
    return result


def _bands(distance: int) -> list[np.uint64]:
    """Return masks that split 64 bits into distance + 1 bands."""
    borders = np.linspace(0, _BITS, distance + 2).round().astype(int).tolist()
    return [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(borders)]


def _neighbors(keys: U64, owners: Ints) -> Iterator[Links]:
    """Yield positions of all pairs with equal key and owner; equal keys are adjacent."""
    places = np.arange(len(keys))
    for offset in range(1, _WINDOW):
        places = places[places + offset < len(keys)]
        others = places + offset
        places = places[(keys[places] == keys[others]) & (owners[places] == owners[others])]
        if not len(places):
            return
        yield places, places + offset


_FACTOR = np.uint64(0x9E3779B97F4A7C15)


_WIDE, _NARROW, _FLAGS = (partial(array, code) for code in "QIB")


@dataclass
class ImageColumns:
    """One entry per image: digest, hashes, COCO id (0: none), size, and whether it opened, has hashes, has findings."""

    digest: "array[int]" = field(default_factory=_WIDE)
    phash: "array[int]" = field(default_factory=_WIDE)
    dhash: "array[int]" = field(default_factory=_WIDE)
    coco: "array[int]" = field(default_factory=_WIDE)
    width: "array[int]" = field(default_factory=_NARROW)
    height: "array[int]" = field(default_factory=_NARROW)
    opens: "array[int]" = field(default_factory=_FLAGS)
    hashed: "array[int]" = field(default_factory=_FLAGS)
    troubled: "array[int]" = field(default_factory=_FLAGS)

    def __len__(self) -> int:
        return len(self.digest)

    def add(self, facts: ImageFacts, coco: int) -> None:
        """Append an image."""
        self.digest.append(facts.digest)
        self.phash.append(facts.phash or 0)
        self.dhash.append(facts.dhash or 0)
        self.coco.append(coco)
        self.width.append(facts.size[0])
        self.height.append(facts.size[1])
        self.opens.append(facts.opens)
        self.hashed.append(facts.phash is not None)
        self.troubled.append(bool(facts.findings))


@dataclass
class RowColumns:
    """One entry per readable pair: row number, digests of texts, sketches, images, and whether no finding removes it.

    `texts` digests the normalized prompt, chosen and rejected; `swapped` the same with the answers exchanged; `figures`
    the numbers in them, since rows that differ in a number are no near-duplicates. The images of row i are
    `image[start[i] : start[i + 1]]`.
    """

    number: "array[int]" = field(default_factory=_NARROW)
    ids: "array[int]" = field(default_factory=_WIDE)
    texts: "array[int]" = field(default_factory=_WIDE)
    swapped: "array[int]" = field(default_factory=_WIDE)
    sketch: "array[int]" = field(default_factory=_WIDE)
    second_sketch: "array[int]" = field(default_factory=_WIDE)
    figures: "array[int]" = field(default_factory=_WIDE)
    question: "array[int]" = field(default_factory=_WIDE)
    clean: "array[int]" = field(default_factory=_FLAGS)
    start: "array[int]" = field(default_factory=lambda: array("Q", [0]))
    image: "array[int]" = field(default_factory=_NARROW)

    def __len__(self) -> int:
        return len(self.number)

    def owners(self) -> Ints:
        """Return the row index of every entry of `image`."""
        return np.repeat(np.arange(len(self)), np.diff(as_int64(self.start)))

    def keys(self, of_image: U64) -> U64:
        """Return one number per row for its sequence of images, each identified by `of_image`."""
        starts, flat = as_int64(self.start), as_int64(self.image)
        counts = np.diff(starts)
        keys = np.zeros(len(self), np.uint64)
        for place in range(int(counts.max(initial=0))):
            has = np.flatnonzero(counts > place)
            keys[has] = mix(keys[has], of_image[flat[starts[has] + place]])
        return keys


def as_int64(values: "array[int]") -> Ints:
    """Return an array as int64."""
    return np.frombuffer(values, dtype=f"u{values.itemsize}").astype(np.int64) if len(values) else np.zeros(0, np.int64)


def as_uint64(values: "array[int]") -> U64:
    """Return a copy as unsigned 64-bit integers."""
    return np.array(values, dtype=np.uint64) if not len(values) else np.frombuffer(values, dtype=np.uint64).copy()


def mix(one: U64, other: U64) -> U64:
    """Hash two numbers into one; their order counts."""
    value = (one ^ (other + _FACTOR)) * _FACTOR
    result: U64 = value ^ (value >> np.uint64(29))
    return result
