"""Repetitions: equal rows, rows with swapped answers, texts on several images, images under several names.

It compares the numbers in `columns`, and only rows that nothing else removes, so that a good row is never dropped as a
repetition of a removed one.
"""

from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sightline.check.columns import (
    U64,
    ImageColumns,
    Ints,
    Likeness,
    RowColumns,
    as_int64,
    as_uint64,
    component_labels,
    mix,
    similar_pairs,
)
from sightline.data.texts import digest

FindingTuple = tuple[int, str, str, str]
_NO_ID = digest("")


def find_repeated_ids(rows: RowColumns) -> Iterator[FindingTuple]:
    """Yield every row whose id an earlier row has."""
    places = as_int64(rows.number)
    ids = as_uint64(rows.ids)
    for row, first in _after_first(ids, np.flatnonzero(ids != np.uint64(_NO_ID))):
        yield int(places[row]), "id", "", f"row {places[first]} has this id"


def find_repeated_images(rows: RowColumns, images: ImageColumns, alike: Ints) -> Iterator[FindingTuple]:
    """Yield rows whose image has several names or resembles another; `alike` is from `group_similar_images`."""
    places, owners, flat = as_int64(rows.number), rows.owners(), as_int64(rows.image)
    same = _same_images(images)
    copied = np.bincount(same, minlength=len(images))[same] > 1
    # Groups with different contents, not only copies.
    kinds = np.bincount(alike[np.unique(same)], minlength=len(images)) if len(images) else alike
    resembling = kinds[alike] > 1
    for check, hit, reason in (
        ("image-copy", copied, "the same file has several names"),
        ("image-alike", resembling, "another picture looks much like it"),
    ):
        for row in np.unique(owners[hit[flat]]):
            yield int(places[row]), check, "", reason


def find_repeated_rows(rows: RowColumns, images: ImageColumns, alike: Ints, like: Likeness) -> Iterator[FindingTuple]:
    """Yield rows that repeat, contradict or nearly repeat another row about the same image."""
    places = as_int64(rows.number)
    clean = np.flatnonzero(as_int64(rows.clean))
    pictures = rows.keys(_same_images(images).astype(np.uint64))
    whole = mix(pictures, as_uint64(rows.texts))
    turned = mix(pictures, as_uint64(rows.swapped))
    twice = np.zeros(len(rows), bool)
    for row, first in _after_first(whole, clean):
        twice[row] = True
        yield int(places[row]), "duplicate", "", f"row {places[first]} is the same"
    opposed = clean[np.isin(whole[clean], turned[clean])]
    for row in opposed:
        yield int(places[row]), "contradiction", "", "a row prefers the rejected answer to the chosen one"
    left = clean[~twice[clean]]
    kinds = mix(rows.keys(alike.astype(np.uint64)), as_uint64(rows.figures))[left]
    groups = np.unique(kinds, return_inverse=True)[1].reshape(-1)
    one, other = (as_uint64(column)[left] for column in (rows.sketch, rows.second_sketch))
    labels = component_labels(len(left), similar_pairs(one, like, groups=groups, confirming=other))
    for row, first in zip(
        left[labels != np.arange(len(left))], left[labels[labels != np.arange(len(left))]], strict=True
    ):
        yield int(places[row]), "near-duplicate", "", f"much like row {places[first]}"
    yield from _repeated_texts(rows, clean, pictures)


def group_similar_images(images: ImageColumns, like: Likeness) -> Ints:
    """Return, for each image, the smallest index of those equal or similar to it."""
    same = _same_images(images)
    hashed = np.flatnonzero(as_int64(images.hashed))
    found = (
        (hashed[one], hashed[other])
        for one, other in similar_pairs(
            as_uint64(images.phash)[hashed], like, confirming=as_uint64(images.dhash)[hashed]
        )
    )
    return component_labels(len(images), chain([(np.arange(len(images)), same)], found))


def _same_images(images: ImageColumns) -> Ints:
    """Return, for each image, the first with the same bytes; an image that does not open equals only itself."""
    if not len(images):
        return np.zeros(0, np.int64)
    _, first, back = np.unique(as_uint64(images.digest), return_index=True, return_inverse=True)
    own = np.arange(len(images))
    result: Ints = np.where(as_int64(images.opens) > 0, first[back.reshape(-1)], own)
    return result


def _repeated_texts(rows: RowColumns, clean: Ints, pictures: U64) -> Iterator[FindingTuple]:
    """Yield rows whose three texts occur with another image too, so that they describe neither."""
    places, texts = as_int64(rows.number), as_uint64(rows.texts)
    _, back = np.unique(texts[clean], return_inverse=True)
    kinds = np.unique(np.stack([back.reshape(-1).astype(np.uint64), pictures[clean]]), axis=1)[0]
    several: NDArray[np.bool_] = np.bincount(kinds.astype(np.int64), minlength=len(clean))[back.reshape(-1)] > 1
    for row in clean[several]:
        yield int(places[row]), "text-repeated", "", "prompt and both answers stand with another picture too"


def _after_first(keys: U64, among: Ints) -> Iterator[tuple[int, int]]:
    """Yield, in order, each of `among` whose key occurred before, with the first such row."""
    _, first, back = np.unique(keys[among], return_index=True, return_inverse=True)
    owner = first[back.reshape(-1)] if len(among) else among
    for place in np.flatnonzero(owner != np.arange(len(among))):
        yield int(among[place]), int(among[owner[place]])
