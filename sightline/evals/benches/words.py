"""Tokenization and answer normalization of the official scripts: NLTK's Penn Treebank rules, and EvalAI's processing.

The rules are those of NLTK up to 3.9.1, with which published metrics were computed; 3.10 also splits at dashes and
after every opening quotation mark. `singular` finds singulars and `coco_objects` the objects. NLTK splits sentences
first, using statistics of abbreviations, so that a sentence's last period is a separate word; here every period before
a blank is one, which differs only for abbreviations ("dr.", "u.s."), none of which is an object. Quotation marks keep
their form in the text, where NLTK writes `` and ''.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from sightline.records.rows import Span

#: Marks that are separate words everywhere.
_MARKS = re.compile(r"""[\u00ab\u201c\u2018\u201e\u00bb\u201d\u2019";@#$%&?!*\[\](){}<>]|`+|''|\.{2,}|--""")
#: The period that ends a sentence; quotation marks and brackets may close after it.
_PERIOD = re.compile(r"""(?<!\.)\.(?=[\])}>"'\u00bb\u201d\u2019]*(?:\s|$)|[)"'\]};*:@({\[](?!\S*\.))""")
#: A comma or colon is a separate word unless a digit follows.
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
    """A word and its span in the text."""

    text: str
    span: Span


def split_words(text: str) -> list[str]:
    """The words of a text in order, including punctuation marks."""
    text = _OPENING.sub("' ", text)
    text = _PERIOD.sub(" . ", text)
    text = _COMMA.sub(lambda found: f" {found[1]} {found[2] or ''}", text)
    text = f" {' '.join(_MARKS.sub(_pad, text).split())} "
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


def _pad(found: "re.Match[str]") -> str:
    return f" {found[0]} "


_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS: dict[str, str] = {"none": "0", **{word: str(value) for value, word in enumerate(_NUMBERS)}}
ARTICLES = frozenset({"a", "an", "the"})

#: Contractions that are restored if one of their apostrophes is missing.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'"]


CONTRACTIONS: dict[str, str] = {
    wrong: right for right in _CONTRACTIONS.split() for wrong in _without_one_apostrophe(right)
}
CONTRACTIONS["somebody'd"] = "somebodyd"  # the one reversed entry of the official table

#: A mark is removed if the text has a space beside it anywhere, else replaced by a space. Commas and question marks are
#: removed before.
_PUNCTUATION = ';/[]"{}()=+\\_-><@`!'
_PERIOD_EVALAI = re.compile(r"\.(?!\d)")
#: The official call passes `re.UNICODE`, which is 32, as the count of `sub`.
_MOST_PERIODS = 32


def process_answer(text: str) -> str:
    """The answer as it is compared: lower case, digits for number words, no articles, no punctuation."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = _strip_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _strip_punctuation(text: str) -> str:
    result = text
    for mark in _PUNCTUATION:
        # Decided by the original text, so that all marks of one kind are treated alike.
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_space else " ")
    return _PERIOD_EVALAI.sub("", result, count=_MOST_PERIODS)


def soft_accuracy(answer: str, human: Sequence[str]) -> float:
    """Agreement in [0, 1] with ten human answers (Antol et al. 2015, arXiv 1505.00468, sec. 3; as EvalAI computes it).

    Each human is left out in turn; the answer earns a third for each of the nine others with the same answer, at most
    1; the result is the mean of the ten. So agreement with two humans is worth 0.6, with three 0.9.
    """
    given, others = process_answer(answer), [process_answer(one) for one in human]
    earned = [min(1.0, (others.count(given) - (one == given)) / 3) for one in others]
    return sum(earned) / len(earned)


R = TypeVar("R", bound=Mapping[str, Any])

#: LLaVA-1.5's instructions for short answers and for options (arXiv 2310.03744, sec. 3.2); other models know them too.
SHORT_ANSWER = "Answer the question using a single word or phrase."
OPTION_LETTER = "Answer with the option's letter from the given choices directly."


def first_pictures(rows: Iterable[R], image: str, limit: int | None) -> Iterator[R]:
    """The rows on the first `limit` images, in order; all rows without a limit."""
    seen: set[Any] = set()
    for row in rows:
        if limit is not None and row[image] not in seen:
            if len(seen) == limit:
                continue
            seen.add(row[image])
        yield row
