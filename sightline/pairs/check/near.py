"""Which of many 64-bit numbers are within a few bits of each other, and what hangs together by that.

Numbers that differ in at most d bits agree in one of d + 1 bands of bits (the pigeonhole), so only those that share a
band are compared. It knows neither pictures nor texts, and holds no more than some numbers for each.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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
