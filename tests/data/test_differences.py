"""Spans in which two texts differ."""

from hypothesis import given
from hypothesis import strategies as st

from sightline.data.texts import changed_spans


def cut(text: str, spans: tuple[tuple[int, int], ...]) -> list[str]:
    return [text[start:end] for start, end in spans]


def test_words_that_changed_were_added_or_went() -> None:
    one, other = "A red cup and a pan.", "A blue cup and two old pans, here."
    first, second = changed_spans(one, other)
    assert cut(one, first) == ["red", "a pan"]
    assert cut(other, second) == ["blue", "two old pans, here"]
    assert changed_spans(one, one) == ((), ())
    assert changed_spans("", "A cup.") == ((), ((0, 6),))


words = st.lists(st.sampled_from(["a", "red", "cup", "and", "."]), max_size=8).map(" ".join)


@given(words, words)
def test_outside_the_spans_the_texts_are_the_same_words(one: str, other: str) -> None:
    left, right = (
        [word for start, word in _words(text) if not any(a <= start < b for a, b in spans)]
        for text, spans in zip((one, other), changed_spans(one, other), strict=True)
    )
    assert left == right


def _words(text: str) -> list[tuple[int, str]]:
    found, start = [], 0
    for word in text.split():
        start = text.index(word, start)
        found.append((start, word))
        start += len(word)
    return found
