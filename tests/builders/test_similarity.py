"""Cosine of word counts against sums worked by hand; the choice of a measure by its name."""

import math
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sightline.builders.similarity import make_similarity, word_similarity
from sightline.errors import InputError


def test_a_sum_worked_by_hand() -> None:
    """a = {the: 2, cup: 1, is: 1, on: 1, table: 1}, b = {the: 2, pan: 1, is: 1, on: 1, table: 1}.

    The product is 2*2 + 1 (is) + 1 (on) + 1 (table) = 7, the squared lengths are both 4 + 4*1 = 8: 7 / 8.
    """
    assert word_similarity(["The cup is on the table."], ["the pan is ON the table"]) == [7 / 8]


def test_another_of_unequal_lengths() -> None:
    """a = {a: 2, red: 1, cup: 1}, b = {a: 1, cup: 3}: (2*1 + 1*3) / sqrt((4 + 1 + 1) * (1 + 9)) = 5 / sqrt(60)."""
    assert word_similarity(["a red, a cup"], ["cup cup a cup"]) == [pytest.approx(5 / math.sqrt(60), rel=1e-15)]


def test_one_changed_noun_in_forty_words() -> None:
    """Forty different words, one of them changed: 39 / 40. Where words repeat, the same change shows less."""
    text = [f"word{number}" for number in range(40)]
    changed = [*text[:17], "spoon", *text[18:]]
    assert word_similarity([" ".join(changed)], [" ".join(text)]) == [39 / 40]
    # With "the" nine times more: (39 + 10*10 - 1) / (40 + 10*10 - 1), when word0 is "the" too.
    repeated = ["the", *text[1:], *["the"] * 9]
    swapped = ["the", *changed[1:], *["the"] * 9]
    assert word_similarity([" ".join(swapped)], [" ".join(repeated)]) == [138 / 139]


@pytest.mark.parametrize("text", ["A cup.", "the the the", "Zwei Tassen; caf\u00e9!", "x " * 1000])
def test_the_same_text_is_exactly_one(text: str) -> None:
    assert word_similarity([text, text.upper()], [text, text]) == [1.0, 1.0]


def test_texts_without_words() -> None:
    """Nothing is like nothing, and unlike anything else."""
    assert word_similarity(["", "...", "", "cup"], ["", "", "cup", "!"]) == [1.0, 1.0, 0.0, 0.0]


def test_no_word_in_common() -> None:
    assert word_similarity(["a cup"], ["two pans"]) == [0.0]


def test_punctuation_and_order_do_not_count_and_texts_are_compared_one_to_one() -> None:
    assert word_similarity(["cup, a red"], ["A red cup."]) == [1.0]
    assert word_similarity(["a", "b", "b"], ["a", "a", "b"]) == [1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="zip"):
        word_similarity(["a"], ["a", "b"])


def test_names() -> None:
    assert make_similarity("words") is word_similarity
    with pytest.raises(InputError, match="'word' is unknown; use 'words'"):
        make_similarity("word")


@pytest.mark.skipif(find_spec("sentence_transformers") is not None, reason="the extra [embed] is installed")
def test_an_embedding_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    assert "sentence_transformers" not in sys.modules
    with pytest.raises(InputError, match=r"pip install 'sightline\[embed\]'"):
        make_similarity(f"sentence-transformers:{tmp_path}")
