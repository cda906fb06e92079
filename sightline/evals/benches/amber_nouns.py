"""AMBER's nouns in an answer, and word similarity: by the official tools, or by rules where they are not installed.

The official script tags with NLTK and compares with the vectors of spaCy's `en_core_web_lg`; both are used if they are
installed with their data. Otherwise a few rules distinguish verbs from nouns and no two words are similar, which
`amber` counts and reports. Case is kept in both: for AMBER, "Dogs" is not the word "dog".
"""

import functools
import importlib.util
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sightline.evals.benches.singular import lemma
from sightline.evals.benches.words import Word, find_words

ALIKE = 0.8  # similarity above which the official script treats two words as one object
_VECTORS = "en_core_web_lg"
_NLTK_DATA = ("tokenizers/punkt_tab", "taggers/averaged_perceptron_tagger_eng", "corpora/wordnet")

_DETERMINERS = frozenset({"a", "an", "the", "this", "that", "each", "every", "another", "one", "his", "her", "its"})
_CANS = _DETERMINERS | {"aluminum", "beer", "garbage", "metal", "paint", "soda", "spray", "tin", "trash", "watering"}
#: Words after which a word that may be a verb is a verb.
_BEFORE_VERBS = frozenset(
    {
        *("to", "can", "could", "may", "might", "must", "shall", "should", "will", "would", "not", "n't"),
        *("i", "you", "he", "she", "it", "we", "they", "who", "which"),
    }
)
_BEFORE_GERUNDS = frozenset({"is", "are", "was", "were", "be", "been", "being", "'s", "'re", "while"})
_GERUNDS = frozenset({"building", "drawing", "painting", "sailing"})
#: Words of AMBER that are verbs where an object follows: "trees line the street", "a man watches his dog".
_VERBS = frozenset(
    {
        *(
            "bear",
            "board",
            "brush",
            "drink",
            "file",
            "leave",
            "light",
            "line",
            "lock",
            "mirror",
            "note",
            "pack",
            "paddle",
        ),
        *(
            "plate",
            "ring",
            "rock",
            "shovel",
            "sign",
            "spray",
            "support",
            "switch",
            "tap",
            "tape",
            "tie",
            "track",
            "watch",
        ),
    }
)
_BEFORE_OBJECTS = _DETERMINERS - {"this", "that", "one"} | {"my", "our", "their", "your"}


@dataclass(frozen=True)
class NounTools:
    """`nouns` finds known nouns with their spans; `alike` compares words, None if no vectors are installed."""

    nouns: Callable[[str, Container[str]], list[Word]]
    alike: Callable[[str, str], bool] | None
    official_nouns: bool

    @property
    def missing_tools(self) -> tuple[str, ...]:
        """The replacements of official tools that are not installed."""
        nouns = () if self.official_nouns else ("own nouns",)
        return nouns if self.alike else (*nouns, "no similarity")


@functools.cache
def installed_tools() -> NounTools:
    """The official tools if NLTK's data and spaCy's vectors are installed, else their replacements."""
    tagged = _has_nltk()
    return NounTools(nltk_nouns if tagged else rule_nouns, _vectors(), tagged)


def rule_nouns(text: str, known: Container[str]) -> list[Word]:
    """Known nouns by rules: a word counts unless its neighbors make it a verb."""
    words = find_words(text)
    near = ["", *(word.text.lower() for word in words), ""]
    found = []
    for place, word in enumerate(words):
        base = lemma(word.text, known)
        if base in known and _is_noun(base, *near[place : place + 3]):
            found.append(Word(base, word.span))
    return found


def _is_noun(base: str, last: str, word: str, following: str) -> bool:
    """Whether a known word is a noun between its neighbors, all in lower case."""
    if word == "can":
        return last in _CANS
    if word == "sailing":
        return last in _DETERMINERS
    if word == "hot" or last in _BEFORE_VERBS or (word in _GERUNDS and last in _BEFORE_GERUNDS):
        return False
    return not (base in _VERBS and following in _BEFORE_OBJECTS and last not in _DETERMINERS)


def nltk_nouns(text: str, known: Container[str]) -> list[Word]:
    """Known nouns by NLTK's tagger and WordNet's lemmatizer, as in the official script."""
    import nltk
    from nltk.stem import WordNetLemmatizer

    base = WordNetLemmatizer().lemmatize
    tagged: Sequence[tuple[str, str]] = nltk.pos_tag(nltk.word_tokenize(text))
    found = ((base(word), word, tag) for word, tag in tagged)
    return [Word(noun, span) for (noun, _, tag), span in _locate(found, text) if tag.startswith("NN") and noun in known]


def _locate(found: Any, text: str) -> Iterator[tuple[tuple[str, str, str], tuple[int, int]]]:
    """Each noun with its span; NLTK rewrites quotation marks, whose span is empty."""
    start = 0
    for item in found:
        place = text.find(item[1], start)
        if place >= 0:
            start = place + len(item[1])
        yield item, (start - len(item[1]), start) if place >= 0 else (start, start)


def _has_nltk() -> bool:
    if importlib.util.find_spec("nltk") is None:
        return False
    import nltk

    try:
        for name in _NLTK_DATA:
            nltk.data.find(name)
    except LookupError:
        return False
    return True


def _vectors() -> Callable[[str, str], bool] | None:
    if importlib.util.find_spec("spacy") is None or importlib.util.find_spec(_VECTORS) is None:
        return None
    import spacy

    read = functools.lru_cache(maxsize=4096)(spacy.load(_VECTORS))

    @functools.lru_cache(maxsize=1 << 18)
    def alike(one: str, other: str) -> bool:
        return bool(read(one).similarity(read(other)) > ALIKE)

    return alike
