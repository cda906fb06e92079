"""A text as the words that a rater can click, and back: marked words as spans of characters.

Offsets never leave Python, whose characters are not a browser's; a page knows words by their number.
"""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from sightline.records.rows import Span

_WORD = re.compile(r"\w+(?:['\N{RIGHT SINGLE QUOTATION MARK}-]\w+)*")


class Piece(NamedTuple):
    """A part of a text; `word` is its number where it is a word, else None."""

    text: str
    word: int | None


def word_spans(text: str) -> list[Span]:
    """Characters `[start, end)` of each word, in order; hyphens and apostrophes within belong to it."""
    return [match.span() for match in _WORD.finditer(text)]


def pieces(text: str) -> list[Piece]:
    """The text in parts, words and what is between them; joined they are the text."""
    made: list[Piece] = []
    reached = 0
    for number, (start, end) in enumerate(word_spans(text)):
        if start > reached:
            made.append(Piece(text[reached:start], None))
        made.append(Piece(text[start:end], number))
        reached = end
    if reached < len(text):
        made.append(Piece(text[reached:], None))
    return made


def spans_of_words(text: str, marked: Collection[int]) -> tuple[Span, ...]:
    """Spans of the marked words; words side by side make one.

    Raises:
        ValueError: the text has no word of such a number.
    """
    places = word_spans(text)
    if strange := [number for number in marked if not 0 <= number < len(places)]:
        raise ValueError(f"the answer has {len(places)} words and none of number {strange[0]}")
    spans: list[Span] = []
    last = None
    for number in sorted(set(marked)):
        start, end = places[number]
        if spans and last == number - 1:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
        last = number
    return tuple(spans)


def words_of_spans(text: str, spans: Sequence[Span]) -> list[int]:
    """Numbers of the words that a span touches: the inverse of `spans_of_words`."""
    return [
        number
        for number, (start, end) in enumerate(word_spans(text))
        if any(start < until and since < end for since, until in spans)
    ]
