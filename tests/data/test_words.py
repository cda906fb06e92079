"""Round trips between word numbers and character spans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.data.texts import spans_to_words, split_text, word_spans, words_to_spans


def test_by_hand() -> None:
    text = "It's a well-lit \N{GRINNING FACE} room."
    assert [text[start:end] for start, end in word_spans(text)] == ["It's", "a", "well-lit", "room"]
    parts = [piece.text for piece in split_text(text)]
    assert parts == ["It's", " ", "a", " ", "well-lit", " \N{GRINNING FACE} ", "room", "."]
    assert [piece.word for piece in split_text(text)] == [0, None, 1, None, 2, None, 3, None]
    assert words_to_spans(text, [3, 1, 2]) == ((5, 22),)
    assert words_to_spans(text, [0, 2]) == ((0, 4), (7, 15))
    assert spans_to_words(text, [(6, 8)]) == [2]
    assert spans_to_words(text, [(4, 5)]) == []


@pytest.mark.parametrize("marked", [[4], [-1], [0, 99]])
def test_a_word_that_is_not_there_is_refused(marked: list[int]) -> None:
    with pytest.raises(ValueError, match="the answer has 4 words and no word"):
        words_to_spans("one two three four", marked)


@given(st.text(max_size=60), st.data())
def test_there_and_back(text: str, data: st.DataObject) -> None:
    assert "".join(piece.text for piece in split_text(text)) == text
    count = len(word_spans(text))
    marked = data.draw(st.sets(st.integers(0, count - 1))) if count else set()
    assert spans_to_words(text, words_to_spans(text, marked)) == sorted(marked)
