"""The 80 objects of COCO in a text, as the official CHAIR script finds them: words, singulars, double words, synonyms.

It holds no truth (`coco_truth` reads that) and scores nothing (`chair` and `object_halbench` do). The synonyms are a
list of our own making, or a file such as the official `synonyms.txt`; which list it was decides the figures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sightline.errors import InputError
from sightline.evals.benches.singular import singular
from sightline.evals.benches.words import Word, find_words
from sightline.records.rows import Span

SYNONYMS = Path(__file__).with_name("coco_synonyms.txt")

_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
#: Two words that are one thing. The official list has three more that can never meet, being of three words or of a word
#: that loses its s ("sports", "tennis").
_PAIRS = """
air plane, baseball bat, baseball glove, cell phone, fire hydrant, hair drier, home plate, hot dog, laptop computer,
mobile phone, motor bike, motor cycle, parking meter, potted plant, stop light, stop sign, street light, suit case,
teddy bear, traffic light, traffic signal, train track, wine glass
"""
_TOGETHER = [pair.strip() for pair in _PAIRS.split(",")]
#: Two words of which one says what it is: "baby elephant" is no person, "toilet seat" no chair.
_TOLD = {
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS},
    **{f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")},
    "bow tie": "tie",
    "toilet seat": "toilet",
    "wine glas": "wine glass",
}


@dataclass(frozen=True)
class Mention:
    """A word for an object of COCO, the object, and the characters of the text."""

    word: str
    object: str
    span: Span


@dataclass(frozen=True)
class Vocabulary:
    """`objects` maps every synonym to its object, `doubles` two words to the word that they are taken for.

    `remarks` says that the synonyms are our own, where they are.
    """

    objects: Mapping[str, str]
    doubles: Mapping[str, str]
    remarks: tuple[str, ...] = ()

    @cached_property
    def known(self) -> frozenset[str]:
        """Every synonym, and every single word of the double words."""
        return frozenset(self.objects).union(*(double.split(" ") for double in self.doubles), self.doubles.values())

    @cached_property
    def _firsts(self) -> frozenset[str]:
        return frozenset(double.partition(" ")[0] for double in self.doubles)

    def mentions(self, text: str, lemma: Callable[[str], str] = singular) -> list[Mention]:
        """Every word for an object, repeated ones too; spans are of the text as given."""
        lower = text.lower()
        if len(lower) != len(text):  # a letter that grows in lower case would move the spans
            lower = "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)
        return self.among([Word(lemma(word.text), word.span) for word in find_words(lower)])

    def among(self, words: Sequence[Word]) -> list[Mention]:
        """Which of the words, already singular, are objects, after double words are joined."""
        joined = self.join(words)
        if any(word.text == "toilet" for word in joined):
            joined = [word for word in joined if word.text != "seat"]  # "the seat of the toilet" is no chair
        return [Mention(word.text, self.objects[word.text], word.span) for word in joined if word.text in self.objects]

    def join(self, words: Sequence[Word]) -> list[Word]:
        """The words with every double word in the place of its two, from left to right."""
        joined, index, last = [], 0, len(words) - 1
        while index <= last:
            word = words[index]
            double = None
            if index < last and word.text in self._firsts:
                double = self.doubles.get(f"{word.text} {words[index + 1].text}")
            if double is None:
                joined.append(word)
                index += 1
            else:
                joined.append(Word(double, (word.span[0], words[index + 1].span[1])))
                index += 2
        return joined

    def object_of(self, name: str) -> str:
        """The object that a name of the truth stands for; a name that is no synonym stands for itself."""
        return self.objects.get(name, name)


def chair_vocabulary(path: Path | None = None) -> Vocabulary:
    """CHAIR's: the double words are a fixed list, and a line is cut at ", " and not otherwise cleaned.

    So the official file's `cake,  cheesecake` holds " cheesecake", with a blank, which no word ever is.
    """
    rows = _read(path or SYNONYMS)
    return Vocabulary(_objects(rows), {**{double: double for double in _TOGETHER}, **_TOLD}, _remarks(path))


def halbench_vocabulary(path: Path | None = None) -> Vocabulary:
    """Object HalBench's: synonyms are stripped, and every synonym of several words is a double word."""
    rows = [[synonym.strip() for synonym in row] for row in _read(path or SYNONYMS)]
    objects = _objects(rows)
    doubles = [word for word in objects if " " in word] + ["home plate", "train track"]
    return Vocabulary(objects, {**{double: double for double in doubles}, **_TOLD}, _remarks(path))


def _remarks(path: Path | None) -> tuple[str, ...]:
    return (
        () if path else ("the synonyms are our own list; for the published figures give the owners' with --synonyms",)
    )


def _objects(rows: Sequence[Sequence[str]]) -> dict[str, str]:
    return {synonym: row[0] for row in rows for synonym in row}


def _read(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: the synonyms cannot be read ({error}); give the official data/synonyms.txt of "
            "LisaAnne/Hallucination, or leave --synonyms out to use ours."
        ) from error
    return [line.strip().split(", ") for line in text.splitlines() if line.strip()]
