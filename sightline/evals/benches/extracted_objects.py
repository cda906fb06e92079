"""Mapping of object names that a language model extracted from an answer to COCO objects, as in Object HalBench.

A name is matched as a double word of the vocabulary, or else by its runs of nouns: "wooden table" is a table, but
"baseball player" is not a person. Nouns are tagged by spaCy's `en_core_web_trf` if it is installed, as in the official
script, and otherwise are the words after the last one that looks like an adjective.
"""

import functools
import importlib.util
import json
import re
from collections.abc import Callable, Sequence

from sightline.evals.benches.coco_objects import ObjectMention, Vocabulary
from sightline.evals.benches.singular import lemma
from sightline.evals.benches.words import Word, split_words

_TAGGER = "en_core_web_trf"
_NOWHERE = (0, 0)
_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)
_LISTED = """
a an the this that these those some several many few other another own one two three four five six seven eight
nine ten first second white black red green blue yellow brown gray grey orange pink purple beige golden silver dark
light bright big large huge small little tiny tall short long wide narrow thin thick high low old new young elderly
adult male female empty full open closed wet dry clean dirty hot cold warm round square flat wooden metal metallic
plastic plaid modern vintage antique main single double top bottom left right front back various different visible
nearby and or of with in on
"""
#: Adjectives and other modifiers; further adjectives are recognized by their endings.
_ADJECTIVES = frozenset(_LISTED.split())
_ADJECTIVE_ENDINGS = ("ed", "ing", "ous", "ful", "less", "ish", "ical", "able", "ible")

#: (lemma, whether it is a noun) of every word of a name.
Tagged = list[tuple[str, bool]]


def read_objects(reply: str) -> list[str] | None:
    """The names in a reply: a JSON list in a code block, or else on its last line with one; None if there is none."""
    fenced = _FENCED.search(reply)
    lines = [fenced[1]] if fenced else [line for line in reply.splitlines() if line.strip().startswith("[")]
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(name, str) for name in found) else None


def read_owners_mentions(reply: str) -> list[tuple[str, str]] | None:
    """The (word, object) of each mention in the official script's `hall_*.json`; None for other replies."""
    if not reply.startswith('{"mscoco_generated_words"'):
        return None
    found = json.loads(reply)["mscoco_generated_words"]
    return [(str(pair[0]), str(pair[-1])) for pair in found if isinstance(pair, list) and pair]


def owners_mentions(found: Sequence[tuple[str, str]], vocabulary: Vocabulary) -> list[ObjectMention]:
    """The mentions in the owners' file, whose words and objects are final; they have no span in the answer."""
    return [ObjectMention(word, vocabulary.resolve(name), _NOWHERE) for word, name in found]


def match_objects(names: Sequence[str], vocabulary: Vocabulary) -> list[ObjectMention]:
    """The COCO objects among the names, each word once; they have no span in the answer."""
    tag = tagger(vocabulary)
    words: dict[str, None] = {}
    for name in names:
        tagged = tag(name)
        doubles = _doubles([base for base, _ in tagged], vocabulary)
        words |= dict.fromkeys(doubles or _runs(tagged))
    # A run of nouns is one word here; it is not joined with the next.
    kept = [word for word in words if not (word == "seat" and "toilet" in words)]
    return [ObjectMention(word, vocabulary.objects[word], _NOWHERE) for word in kept if word in vocabulary.objects]


def tagger(vocabulary: Vocabulary) -> Callable[[str], Tagged]:
    """SpaCy's tagger if it is installed, else a rule-based one for the words of the vocabulary."""
    official = _spacy_tagger()
    return official or functools.partial(_tag, vocabulary=vocabulary)


@functools.cache
def has_official_tagger() -> bool:
    """Whether spaCy and its large English pipeline are installed."""
    return importlib.util.find_spec("spacy") is not None and importlib.util.find_spec(_TAGGER) is not None


@functools.cache
def _spacy_tagger() -> Callable[[str], Tagged] | None:
    if not has_official_tagger():
        return None
    import spacy

    read = spacy.load(_TAGGER)
    return lambda name: [(str(token.lemma_), str(token.tag_).startswith("NN")) for token in read(f"a {name}")]


def _tag(name: str, vocabulary: Vocabulary) -> Tagged:
    """Every word in its base form; the last one is a noun, as are earlier ones that do not look like adjectives."""
    words = split_words(name.lower())
    bases = ["man" if word == "men" else lemma(word, vocabulary.known) for word in words]
    last = len(words) - 1
    return [(base, place == last or not _looks_like_adjective(words[place])) for place, base in enumerate(bases)]


def _looks_like_adjective(word: str) -> bool:
    return word in _ADJECTIVES or word.endswith(_ADJECTIVE_ENDINGS) or not word.isalpha()


def _doubles(bases: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    words = [Word(base, (place, place)) for place, base in enumerate(bases)]
    return [word.text for word in vocabulary.join(words) if word.span[0] != word.span[1]]


def _runs(tagged: Tagged) -> list[str]:
    runs = [[]] if tagged else list[list[str]]()
    for base, is_noun in tagged:
        if is_noun:
            runs[-1].append(base)
        else:
            runs.append([])
    return [" ".join(run) for run in runs if run]
