"""Text to words as the official scripts of object benchmarks cut it: the Penn Treebank's rules in NLTK's reading.

The rules are those of NLTK up to 3.9.1, by which published figures were made; 3.10 also cuts at dashes and after every
opening quotation mark. It is not a tagger and knows no object; `singular` takes plurals away and `coco_objects` finds
the objects. NLTK cuts sentences first, by statistics of abbreviations, so that a sentence's last period is a word of
its own; here every period before a blank is one, which differs only for abbreviations ("dr.", "u.s."), none of them an
object. Quotation marks keep the form that they have in the text, where NLTK writes `` and ''.
"""

import re
from typing import NamedTuple

from sightline.records.rows import Span

#: Marks that are words of their own wherever they stand; a comma or colon only before something that is no digit.
_MARKS = re.compile(r"""[\u00ab\u201c\u2018\u201e\u00bb\u201d\u2019";@#$%&?!*\[\](){}<>]|`+|''|\.{2,}|--""")
#: The period that ends a sentence; quotation marks and brackets may close after it.
_PERIOD = re.compile(r"""(?<!\.)\.(?=[\])}>"'\u00bb\u201d\u2019]*(?:\s|$)|[)"'\]};*:@({\[](?!\S*\.))""")
_COMMA = re.compile(r"([:,])(?:(\D)|$)")
#: Before one letter only: 'dog keeps its mark.
_OPENING = re.compile(r"'(?!re|ve|ll|m|t|s|d|n)(?=\w\b)", re.IGNORECASE)
_CLOSING = re.compile(r"(?<=[^' ])' ")
_CLITIC = re.compile(r"(?<=[^' ])('s|'m|'d|'ll|'re|'ve|n't) ", re.IGNORECASE)
_FUSED = re.compile(
    r"\b(?:(can)(not)|(d)('ye)|(gim)(me)|(gon)(na)|(got)(ta)|(lem)(me)|(more)('n))\b"
    r"|\b(wan)(na)(?=\s)|(?<=\s)('t)(is|was)\b",
    re.IGNORECASE,
)


class Word(NamedTuple):
    """A word and the characters of the text that it was cut from."""

    text: str
    span: Span


def split_words(text: str) -> list[str]:
    """The words of a text, marks included, in order."""
    text = _OPENING.sub("' ", text)
    text = _PERIOD.sub(" . ", text)
    text = _COMMA.sub(lambda found: f" {found[1]} {found[2] or ''}", text)
    text = f" {' '.join(_MARKS.sub(_apart, text).split())} "
    text = _CLITIC.sub(r" \1 ", _CLOSING.sub(" ' ", text))
    return _FUSED.sub(lambda found: " {} {} ".format(*filter(None, found.groups())), text).split()


def find_words(text: str) -> list[Word]:
    """The same words, each with its span."""
    found, start = [], 0
    for word in split_words(text):
        start = text.index(word, start)
        found.append(Word(word, (start, start + len(word))))
        start += len(word)
    return found


def _apart(found: "re.Match[str]") -> str:
    return f" {found[0]} "
