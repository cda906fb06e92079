"""Structured explanations: a line an attribute, with its importance, both values and their similarity; read and made.

The form is that of arXiv 2409.08185, whose ablations leave importance out, or both numbers. The paper has a language
model write them; `from_strings` makes them of the similarity of strings instead, for those who have none.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sightline.data.texts import normalize
from sightline.recipes.matching.entities.pairs import EntityPair


def similarity(a: str, b: str) -> float:
    """2 |A & B| / (|A| + |B|) over the trigrams of both, each as often as it occurs; 0 where one is missing."""
    one, other = trigrams(a), trigrams(b)
    total = sum(one.values()) + sum(other.values())
    return 2 * sum((one & other).values()) / total if one and other else 0.0


def trigrams(text: str) -> Counter[str]:
    """Runs of three characters of a normalized text with one space before and behind; none of an empty one."""
    words = normalize(text)
    padded = f" {words} "
    return Counter(padded[place : place + 3] for place in range(len(padded) - 2)) if words else Counter()


MISSING = "missing"
_LINE = re.compile(
    r"attribute=(?P<name>.+?)\|\|\|importance=(?P<importance>[-+]?[\d.]+)"
    r"\|\|\|values=(?P<left>.*?)###(?P<right>.*?)\|\|\|similarity=(?P<similarity>[-+]?[\d.]+)"
)


@dataclass(frozen=True)
class ComparedAttribute:
    """One attribute: `importance` in [-1, 1], below 0 where it speaks against a match, `similarity` in [0, 1]."""

    name: str
    importance: float
    left: str
    right: str
    similarity: float

    def line(self, *, importance: bool, similarity: bool) -> str:
        """The attribute's line, with the numbers that are wanted."""
        parts = [f"attribute={self.name}"]
        parts += [f"importance={_number(self.importance)}"] if importance else []
        parts += [f"values={self.left or MISSING}###{self.right or MISSING}"]
        parts += [f"similarity={_number(self.similarity)}"] if similarity else []
        return "|||".join(parts)


def read_structured(reply: str) -> list[ComparedAttribute] | None:
    """The attributes of a reply; None where a line breaks the form or a number its range, or there is none."""
    found = []
    for line in reply.strip().splitlines():
        match = _LINE.fullmatch(line.strip())
        try:
            importance, alike = (float(match[name]) for name in ("importance", "similarity")) if match else (2.0, 2.0)
        except ValueError:
            return None
        if match is None or not -1 <= importance <= 1 or not 0 <= alike <= 1:
            return None
        found.append(ComparedAttribute(match["name"].strip(), importance, match["left"], match["right"], alike))
    return found or None


@dataclass(frozen=True)
class Means:
    """How alike an attribute's values are on average, in pairs that match and in others, where both are there."""

    matching: float
    other: float

    def importance(self, alike: float) -> float:
        """How much a similarity speaks for a match: m - n at the mean m of matches, n - m at the mean n of others.

        Between the two it is linear, beyond them constant. An attribute that is no more alike in matches says nothing.
        """
        apart = self.matching - self.other
        if apart <= 0:
            return 0.0
        middle = (self.matching + self.other) / 2
        return apart * max(-1.0, min(1.0, 2 * (alike - middle) / apart))


def means_of(pairs: Iterable[EntityPair]) -> dict[str, Means]:
    """The means of every attribute over labelled pairs; none of an attribute that one of the two sorts never has."""
    sums: dict[tuple[str, bool], list[float]] = {}
    for pair in pairs:
        for name in pair.attributes:
            if pair.left.get(name) and pair.right.get(name):
                sums.setdefault((name, pair.match), []).append(similarity(pair.left[name], pair.right[name]))
    mean = {key: sum(values) / len(values) for key, values in sums.items()}
    names = dict.fromkeys(name for name, _ in mean)
    return {
        name: Means(mean[name, True], mean[name, False])
        for name in names
        if (name, True) in mean and (name, False) in mean
    }


def from_strings(pair: EntityPair, means: Mapping[str, Means]) -> list[ComparedAttribute]:
    """Each attribute compared by its strings; a missing value is alike to nothing and says nothing."""
    made = []
    for name in pair.attributes:
        left, right = pair.left.get(name, ""), pair.right.get(name, "")
        alike = similarity(left, right)
        says = means[name].importance(alike) if left and right and name in means else 0.0
        made.append(ComparedAttribute(name, says, left, right, alike))
    return made


def _number(value: float) -> str:
    """Two decimals, and never a minus before zero."""
    return f"{round(value, 2) + 0.0:.2f}"
