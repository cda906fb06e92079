"""Normalization, digests and sketches of texts."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.check.columns import sketch
from sightline.data.texts import digest, normalize


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A red cup.", "a  red\ncup"),
        ("(Yes)", "yes!"),
        ("\uff21\uff22", "ab"),
        ("well-known", "well known"),
        ("zero\u200bwidth", "zero width"),
        ("STRASSE", "stra\u00dfe"),
    ],
)
def test_what_is_the_same_after_normalization(one: str, other: str) -> None:
    assert normalize(one) == normalize(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It is -5.", "It is 5."),
        ("5 < 6", "5 > 6"),
        ("50%", "50"),
        ("$5", "5"),
        ("3.5", "35"),
        ("\u0915\u093f", "\u0915\u0941"),  # two vowel signs of one Devanagari letter
        ("\U0001f600", "\U0001f622"),
    ],
)
def test_what_is_not(one: str, other: str) -> None:
    assert normalize(one) != normalize(other)


def test_nothing_may_be_left() -> None:
    assert normalize(" ...! \n") == ""


@given(st.text())
def test_normalization_is_idempotent_and_total(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)
    assert 0 <= digest(text) < 2**64 and all(0 <= half < 2**64 for half in sketch((text,)))


def test_parts_are_not_run_together() -> None:
    assert digest("a", "b") != digest("ab") != digest("", "ab")
    assert digest("a", "b") != digest("b", "a")
    assert sketch(("some long prompt", "one answer")) != sketch(("one answer", "some long prompt"))


def test_a_sketch_differs_in_half_of_what_the_jaccard_similarity_lacks() -> None:
    """The expected share of differing bits is (1 - J) / 2 (Li & Konig 2010)."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    for keep in (1.0, 0.9, 0.5, 0.0):
        shares, wanted = [], []
        for _ in range(60):
            one = "".join(draw.choices(letters, k=400))
            cut = int(len(one) * keep)
            other = one[:cut] + "".join(draw.choices(letters, k=400 - cut))
            sets = [{text[i : i + 5] for i in range(396)} for text in (one, other)]
            shares += [(a ^ b).bit_count() / 64 for a, b in zip(sketch((one,)), sketch((other,)), strict=True)]
            wanted.append((1 - len(sets[0] & sets[1]) / len(sets[0] | sets[1])) / 2)
        assert np.mean(shares) == pytest.approx(np.mean(wanted), abs=0.03)
