"""Compact facts of all rows and images, some bytes each, as arrays that grow: what is compared after the rows are read.

`gather` fills them, `repeats` and `overlap` ask them.
"""

from array import array
from dataclasses import dataclass, field

import numpy as np

from sightline.pairs.check.near import U64, Ints
from sightline.pairs.check.pictures import Look

_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def _wide() -> "array[int]":
    return array("Q")


def _narrow() -> "array[int]":
    return array("I")


def _flags() -> "array[int]":
    return array("B")


@dataclass
class Images:
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
