"""Comparison of texts: normalization, 64-bit digests, changed spans, and words by number.

Character offsets never leave Python, whose characters differ from a browser's; web pages refer to words by number.
"""

import hashlib
import re
import sys
import unicodedata
from collections.abc import Collection, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple

from sightline.records.rows import Span

#: Punctuation, separators and controls. Symbols, the percent sign and the minus of a number carry meaning and stay.
_BREAKS = {
    code: " "
    for code in range(sys.maxunicode + 1)
    if unicodedata.category(chr(code))[0] in "PZ" or unicodedata.category(chr(code)) in ("Cc", "Cf")
    if chr(code) not in "%-"
}
_HYPHEN = re.compile(r"-(?!\d)|(?<=\w)-")


def normalize(text: str) -> str:
    """The text without differences in case, punctuation, character width and white space; possibly empty."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.casefold().translate(_BREAKS)
    if "-" in text:
        text = _HYPHEN.sub(" ", text)
    return " ".join(text.split())


def digest(*parts: str) -> int:
    """A 64-bit digest of texts, equal only if all parts are equal (up to collisions)."""
    joined = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


_TOKEN = re.compile(r"\w+(?:['\N{RIGHT SINGLE QUOTATION MARK}-]\w+)*|[^\w\s]")
Spans = tuple[tuple[int, int], ...]


def changed_spans(one: str, other: str) -> tuple[Spans, Spans]:
    """The character spans `[start, end)` of each text that differ from the other; case and punctuation count."""
    found = [list(_TOKEN.finditer(text)) for text in (one, other)]
    words = [[match.group() for match in matches] for matches in found]
    spans: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    matcher = SequenceMatcher(a=words[0], b=words[1], autojunk=False)
    for kind, first, first_end, second, second_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        for side, (start, end) in enumerate(((first, first_end), (second, second_end))):
            if end > start:
                spans[side].append((found[side][start].start(), found[side][end - 1].end()))
    return tuple(spans[0]), tuple(spans[1])


_WORD = re.compile(r"\w+(?:['\N{RIGHT SINGLE QUOTATION MARK}-]\w+)*")


class TextSegment(NamedTuple):
    """A part of a text; `word` is the number of a word, None between words."""

    text: str
    word: int | None


def word_spans(text: str) -> list[Span]:
    """The character span `[start, end)` of each word, in order; inner hyphens and apostrophes belong to the word."""
    return [match.span() for match in _WORD.finditer(text)]


def split_text(text: str) -> list[TextSegment]:
    """The words of a text and the parts between them; their concatenation is the text."""
    parts: list[TextSegment] = []
    reached = 0
    for number, (start, end) in enumerate(word_spans(text)):
        if start > reached:
            parts.append(TextSegment(text[reached:start], None))
        parts.append(TextSegment(text[start:end], number))
        reached = end
    if reached < len(text):
        parts.append(TextSegment(text[reached:], None))
    return parts


def words_to_spans(text: str, marked: Collection[int]) -> tuple[Span, ...]:
    """The spans of the marked words; adjacent words form one span.

    Raises:
        ValueError: the text has no word of that number.
    """
    places = word_spans(text)
    if strange := [number for number in marked if not 0 <= number < len(places)]:
        raise ValueError(f"the answer has {len(places)} words and no word {strange[0]}")
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


def spans_to_words(text: str, spans: Sequence[Span]) -> list[int]:
    """The numbers of the words that a span touches: the inverse of `words_to_spans`."""
    return [
        number
        for number, (start, end) in enumerate(word_spans(text))
        if any(start < until and since < end for since, until in spans)
    ]


_BORDER = re.compile(r"(?<=[.!?])[\"')\]\u201d\u2019\u00bb]*\s+(?=\S)")
_ABBREVIATION = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|vs|etc|e\.g|i\.e)|\b[A-Z])\.$")
_YES_NO = re.compile(r"^\s*(Yes|yes|No|no)\b")  # the paper's pattern lacks `\b` and would match "Now", "North"
_SWAPPED = {"Yes": "No", "yes": "no", "No": "Yes", "no": "yes"}


def split_sentences(text: str) -> list[str]:
    """Sentences with the white space before each, so that their concatenation is the text; none for a blank text.

    Titles, initials and decimals do not end a sentence.
    """
    starts = [0]
    for border in _BORDER.finditer(text):
        end = border.start() + len(border.group().rstrip())
        if not _ABBREVIATION.search(text[starts[-1] : end]):
            starts.append(end)
    return [text[start:end] for start, end in pairwise([*starts, len(text)])] if text.strip() else []


def starts_with_yes_no(sentence: str) -> bool:
    """Whether the sentence begins with the word yes or no."""
    return _YES_NO.match(sentence) is not None


def swap_yes_no(sentence: str) -> str:
    """The sentence with a leading yes and no swapped, case kept; unchanged if it begins with neither."""
    return _YES_NO.sub(lambda m: m.group().replace(m.group(1), _SWAPPED[m.group(1)]), sentence, count=1)


def cut_before_word(sentence: str, word: int) -> str:
    """The first `word` words with the white space before each: `cut_before_word(" a red cup.", 2) == " a red"`."""
    ends = [m.end() for m in re.finditer(r"^\s*|\S+", sentence)]
    return sentence[: ends[word]]


def count_words(sentence: str) -> int:
    """The number of words separated by white space."""
    return len(sentence.split())
