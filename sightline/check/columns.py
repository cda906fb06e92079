"""Compact facts of all rows and images, some bytes each, as arrays that grow: what is compared after the rows are read.

`gather` fills them, `repeats` and `overlap` ask them.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sightline.check.pictures import Look

_SHINGLE = 5  # characters
_MOST = 20_000  # characters of a text that are sketched
_rng = np.random.default_rng(0)
_FACTORS = (_rng.integers(0, 2**31, size=128, dtype=np.uint32) * np.uint32(2) + np.uint32(1))[:, None]
_TERMS = _rng.integers(0, 2**32, size=128, dtype=np.uint32)[:, None]
_POWERS = np.array([1_000_003**power % 2**32 for power in range(_SHINGLE)], dtype=np.uint32)
_MIXER = np.uint32(0x9E3779B1)  # the golden ratio, as Knuth multiplies hashes


def sketch(parts: Sequence[str]) -> tuple[int, int]:
    """Twice 64 bits that are close for texts that are alike; the same shingle in another part is another one."""
    hashed = [_shingles(part, number) for number, part in enumerate(parts)]
    shingles = np.concatenate(hashed) if hashed else np.zeros(0, np.uint32)
    if not len(shingles):
        return 0, 0
    least = (_FACTORS * shingles + _TERMS).min(axis=1)
    bits = (least * _MIXER) >> np.uint32(31)
    first, second = np.packbits(bits.astype(np.uint8)).view(np.uint64)
    return int(first), int(second)


def _shingles(text: str, part: int) -> NDArray[np.uint32]:
    """A hash of every run of five characters; of the whole, filled up, where there are fewer."""
    raw = text[:_MOST].ljust(_SHINGLE).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(raw, dtype=np.uint32)
    hashed = np.zeros(len(codes) - _SHINGLE + 1, dtype=np.uint32)
    for offset, power in enumerate(_POWERS):
        hashed += codes[offset : len(hashed) + offset] * power
    hashed = (hashed ^ np.uint32(part * 0x5BD1E995 & 0xFFFFFFFF)) * _MIXER
    mixed: NDArray[np.uint32] = hashed ^ (hashed >> np.uint32(15))
    return mixed


U64 = NDArray[np.uint64]
Ints = NDArray[np.int64]
Links = tuple[Ints, Ints]
_BITS = 64
#: How many neighbors in the order of a band a number is compared with; only a band that more share is cut short.
_WINDOW = 2_000


@dataclass(frozen=True)
class Likeness:
    """Two of one group are alike if they differ in at most `distance` bits, and in `confirming` as `confirm` allows."""

    distance: int
    confirm: int = _BITS


def links(numbers: U64, like: Likeness, groups: Ints | None = None, confirming: U64 | None = None) -> Iterator[Links]:
    """Pairs of indices that are alike, in parts of bounded size; a pair may come twice.

    Of things that are equal in all respects only the first is compared, and the others are linked to it.
    """
    none = np.zeros(len(numbers), np.uint64)
    second = none if confirming is None else confirming
    owners = none.astype(np.int64) if groups is None else groups
    if not len(numbers):
        return
    order = np.lexsort((np.arange(len(numbers)), second, numbers, owners))
    columns = (numbers[order], second[order], owners[order])
    fresh = np.ones(len(order), bool)
    fresh[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    first = order[np.flatnonzero(fresh)[np.cumsum(fresh) - 1]]
    yield first[~fresh], order[~fresh]
    kept = order[fresh]
    for band in _bands(like.distance):
        in_order = kept[np.lexsort((numbers[kept], numbers[kept] & band, owners[kept]))]
        for i, j in _neighbors(numbers[in_order] & band, owners[in_order]):
            one, other = in_order[i], in_order[j]
            close = np.bitwise_count(numbers[one] ^ numbers[other]) <= like.distance
            close &= np.bitwise_count(second[one] ^ second[other]) <= like.confirm
            yield one[close], other[close]


def components(count: int, parts: Iterable[Links]) -> Ints:
    """For each of `count` things the smallest index of what it hangs together with."""
    labels = np.arange(count)
    waiting: list[Links] = []
    for part in parts:
        waiting.append(part)
        if sum(len(one) for one, _ in waiting) > count + 1_000_000:
            labels, waiting = _merged(labels, waiting), []
    return _merged(labels, waiting)


def _merged(labels: Ints, parts: list[Links]) -> Ints:
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
    """Masks that cut 64 bits into distance + 1 bands."""
    borders = np.linspace(0, _BITS, distance + 2).round().astype(int).tolist()
    return [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(borders)]


def _neighbors(keys: U64, owners: Ints) -> Iterator[Links]:
    """Places of all pairs with one key and owner, where equal ones stand together."""
    places = np.arange(len(keys))
    for offset in range(1, _WINDOW):
        places = places[places + offset < len(keys)]
        others = places + offset
        places = places[(keys[places] == keys[others]) & (owners[places] == owners[others])]
        if not len(places):
            return
        yield places, places + offset


_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def _wide() -> "array[int]":
    return array("Q")


def _narrow() -> "array[int]":
    return array("I")


def _flags() -> "array[int]":
    return array("B")


@dataclass
class ImageColumns:
    """An image each: digest, hashes, COCO id (0: none), size, and whether it opened, has hashes, has troubles."""

    digest: "array[int]" = field(default_factory=_wide)
    phash: "array[int]" = field(default_factory=_wide)
    dhash: "array[int]" = field(default_factory=_wide)
    coco: "array[int]" = field(default_factory=_wide)
    width: "array[int]" = field(default_factory=_narrow)
    height: "array[int]" = field(default_factory=_narrow)
    opens: "array[int]" = field(default_factory=_flags)
    hashed: "array[int]" = field(default_factory=_flags)
    troubled: "array[int]" = field(default_factory=_flags)

    def __len__(self) -> int:
        return len(self.digest)

    def add(self, look: Look, coco: int) -> None:
        """Append one."""
        self.digest.append(look.digest)
        self.phash.append(look.phash or 0)
        self.dhash.append(look.dhash or 0)
        self.coco.append(coco)
        self.width.append(look.size[0])
        self.height.append(look.size[1])
        self.opens.append(look.opens)
        self.hashed.append(look.phash is not None)
        self.troubled.append(bool(look.findings))


@dataclass
class Rows:
    """A readable pair each: number of the row, digests of texts, sketches, its images, and whether nothing removes it.

    `texts` is of prompt, chosen and rejected, normalized, `swapped` with the answers exchanged, `figures` of the
    numbers in them, since rows that differ in a number are not nearly the same. The images of the i-th are
    `image[start[i] : start[i + 1]]`.
    """

    number: "array[int]" = field(default_factory=_narrow)
    ids: "array[int]" = field(default_factory=_wide)
    texts: "array[int]" = field(default_factory=_wide)
    swapped: "array[int]" = field(default_factory=_wide)
    sketch: "array[int]" = field(default_factory=_wide)
    second_sketch: "array[int]" = field(default_factory=_wide)
    figures: "array[int]" = field(default_factory=_wide)
    question: "array[int]" = field(default_factory=_wide)
    clean: "array[int]" = field(default_factory=_flags)
    start: "array[int]" = field(default_factory=lambda: array("Q", [0]))
    image: "array[int]" = field(default_factory=_narrow)

    def __len__(self) -> int:
        return len(self.number)

    def owners(self) -> Ints:
        """For every entry of `image` the index of its row."""
        return np.repeat(np.arange(len(self)), np.diff(integers(self.start)))

    def keys(self, of_image: U64) -> U64:
        """One number a row for the sequence of its images, each of which is known by `of_image`."""
        starts, flat = integers(self.start), integers(self.image)
        counts = np.diff(starts)
        keys = np.zeros(len(self), np.uint64)
        for place in range(int(counts.max(initial=0))):
            has = np.flatnonzero(counts > place)
            keys[has] = mixed(keys[has], of_image[flat[starts[has] + place]])
        return keys


def integers(values: "array[int]") -> Ints:
    """An array as numpy's; shared memory where it is wide enough already."""
    return np.frombuffer(values, dtype=f"u{values.itemsize}").astype(np.int64) if len(values) else np.zeros(0, np.int64)


def numbers(values: "array[int]") -> U64:
    """64-bit numbers as numpy's."""
    return np.array(values, dtype=np.uint64) if not len(values) else np.frombuffer(values, dtype=np.uint64).copy()


def mixed(one: U64, other: U64) -> U64:
    """Two numbers as one, the order counting."""
    value = (one ^ (other + _FACTOR)) * _FACTOR
    made: U64 = value ^ (value >> np.uint64(29))
    return made
