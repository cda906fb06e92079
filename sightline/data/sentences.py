"""Rule-based splitting of an answer into sentences and words, and the swap of a leading yes or no.

The rules need no download and give the same bytes everywhere. BDHS (`builders.bdhs`) cuts and diverges sentences.
"""

import re
from itertools import pairwise

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
