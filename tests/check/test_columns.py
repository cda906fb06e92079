"""Similar 64-bit numbers against a comparison of all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.check.columns import Likeness, component_labels, similar_pairs

NUMBERS = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 63), max_size=6)), max_size=12)


def flipped(number: int, bits: list[int]) -> int:
    for bit in bits:
        number ^= 1 << bit
    return number


@given(NUMBERS, st.integers(0, 7))
def test_all_pairs_within_the_distance_are_found_and_no_other(
    drawn: list[tuple[int, list[int]]], distance: int
) -> None:
    values = [number for first, bits in drawn for number in (first, flipped(first, bits))]
    found = {
        (min(i, j), max(i, j))
        for one, other in similar_pairs(np.array(values, np.uint64), Likeness(distance))
        for i, j in zip(one.tolist(), other.tolist(), strict=True)
    }
    first = {value: place for place, value in reversed(list(enumerate(values)))}
    wanted = {
        (i, j)
        for j in range(len(values))
        for i in range(j)
        if (values[i] ^ values[j]).bit_count() <= distance
        and (first[values[i]] == i and (first[values[j]] == j or values[i] == values[j]))
    }
    assert found == wanted


def test_groups_and_a_second_number_keep_apart() -> None:
    numbers = np.array([0, 1, 0, 3], np.uint64)
    whole = component_labels(4, similar_pairs(numbers, Likeness(1)))
    assert whole.tolist() == [0, 0, 0, 0]
    apart = component_labels(4, similar_pairs(numbers, Likeness(1), groups=np.array([0, 0, 1, 1])))
    assert apart.tolist() == [0, 0, 2, 3]
    second = np.array([0, 255, 0, 0], np.uint64)
    assert component_labels(4, similar_pairs(numbers, Likeness(2, 4), confirming=second)).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one(count: int) -> None:
    assert component_labels(count, similar_pairs(np.zeros(count, np.uint64), Likeness(3))).tolist() == list(
        range(count)
    )


def test_many_copies_are_few_links() -> None:
    numbers = np.full(200_000, 7, np.uint64)
    assert sum(len(one) for one, _ in similar_pairs(numbers, Likeness(4))) == len(numbers) - 1
    assert not component_labels(len(numbers), similar_pairs(numbers, Likeness(4))).any()
