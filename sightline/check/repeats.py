"""What occurs more than once: rows, rows turned around, texts on other pictures, pictures under several names.

It compares the numbers that `columns` holds, and only rows that nothing else removes, so that a good row is never taken
for the repetition of one that goes.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sightline.check.columns import U64, ImageColumns, Ints, Likeness, Rows, components, integers, links, mixed, numbers
from sightline.data.texts import digest

Found = tuple[int, str, str, str]
_NO_ID = digest("")


def repeated_ids(rows: Rows) -> Iterator[Found]:
    """Every row whose id an earlier one has."""
    places = integers(rows.number)
    ids = numbers(rows.ids)
    for row, first in _after_first(ids, np.flatnonzero(ids != np.uint64(_NO_ID))):
        yield int(places[row]), "id", "", f"row {places[first]} has this id"


def repeated_images(rows: Rows, images: ImageColumns, alike: Ints) -> Iterator[Found]:
    """Rows whose picture has other names too, or looks like another; `alike` is from `like_images`."""
    places, owners, flat = integers(rows.number), rows.owners(), integers(rows.image)
    same = _same_images(images)
    copied = np.bincount(same, minlength=len(images))[same] > 1
    # Groups that hold different contents, not only copies.
    kinds = np.bincount(alike[np.unique(same)], minlength=len(images)) if len(images) else alike
    resembling = kinds[alike] > 1
    for check, hit, reason in (
        ("image-copy", copied, "the same file has several names"),
        ("image-alike", resembling, "another picture looks much like it"),
    ):
        for row in np.unique(owners[hit[flat]]):
            yield int(places[row]), check, "", reason


def repeated_rows(rows: Rows, images: ImageColumns, alike: Ints, like: Likeness) -> Iterator[Found]:
    """Rows that say what another says of the same picture, its opposite, or nearly the same."""
    places = integers(rows.number)
    clean = np.flatnonzero(integers(rows.clean))
    pictures = rows.keys(_same_images(images).astype(np.uint64))
    whole = mixed(pictures, numbers(rows.texts))
    turned = mixed(pictures, numbers(rows.swapped))
    twice = np.zeros(len(rows), bool)
    for row, first in _after_first(whole, clean):
        twice[row] = True
        yield int(places[row]), "duplicate", "", f"row {places[first]} is the same"
    opposed = clean[np.isin(whole[clean], turned[clean])]
    for row in opposed:
        yield int(places[row]), "contradiction", "", "a row prefers the rejected answer to the chosen one"
    left = clean[~twice[clean]]
    kinds = mixed(rows.keys(alike.astype(np.uint64)), numbers(rows.figures))[left]
    groups = np.unique(kinds, return_inverse=True)[1].reshape(-1)
    one, other = (numbers(column)[left] for column in (rows.sketch, rows.second_sketch))
    labels = components(len(left), links(one, like, groups=groups, confirming=other))
    for row, first in zip(
        left[labels != np.arange(len(left))], left[labels[labels != np.arange(len(left))]], strict=True
    ):
        yield int(places[row]), "near-duplicate", "", f"much like row {places[first]}"
    yield from _repeated_texts(rows, clean, pictures)


def like_images(images: ImageColumns, like: Likeness) -> Ints:
    """For each image the smallest index of those it is the same as or looks like."""
    same = _same_images(images)
    hashed = np.flatnonzero(integers(images.hashed))
    found = (
        (hashed[one], hashed[other])
        for one, other in links(numbers(images.phash)[hashed], like, confirming=numbers(images.dhash)[hashed])
    )
    return components(len(images), _with((np.arange(len(images)), same), found))


def _with(first: tuple[Ints, Ints], rest: Iterator[tuple[Ints, Ints]]) -> Iterator[tuple[Ints, Ints]]:
    yield first
    yield from rest


def _same_images(images: ImageColumns) -> Ints:
    """For each image the first of the same bytes; one that does not open is like itself alone."""
    if not len(images):
        return np.zeros(0, np.int64)
    _, first, back = np.unique(numbers(images.digest), return_index=True, return_inverse=True)
    own = np.arange(len(images))
    made: Ints = np.where(integers(images.opens) > 0, first[back.reshape(-1)], own)
    return made


def _repeated_texts(rows: Rows, clean: Ints, pictures: U64) -> Iterator[Found]:
    """Rows whose three texts stand with another picture too: nothing of the picture is in them."""
    places, texts = integers(rows.number), numbers(rows.texts)
    _, back = np.unique(texts[clean], return_inverse=True)
    kinds = np.unique(np.stack([back.reshape(-1).astype(np.uint64), pictures[clean]]), axis=1)[0]
    several: NDArray[np.bool_] = np.bincount(kinds.astype(np.int64), minlength=len(clean))[back.reshape(-1)] > 1
    for row in clean[several]:
        yield int(places[row]), "text-repeated", "", "prompt and both answers stand with another picture too"


def _after_first(keys: U64, among: Ints) -> Iterator[tuple[int, int]]:
    """Of `among`, in order, each whose key an earlier one has, with the first of them."""
    _, first, back = np.unique(keys[among], return_index=True, return_inverse=True)
    owner = first[back.reshape(-1)] if len(among) else among
    for place in np.flatnonzero(owner != np.arange(len(among))):
        yield int(among[place]), int(among[owner[place]])
