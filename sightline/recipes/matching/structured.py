"""Structured explanations: one line per attribute with its importance, both values and their similarity.

The format is that of arXiv 2409.08185, whose ablations omit importance, or both numbers. In the paper a language model
writes them; `compare_strings` computes them from string similarity instead.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sightline.data.texts import normalize
from sightline.recipes.matching.entities.pairs import EntityPair


def similarity(a: str, b: str) -> float:
    """2 |A & B| / (|A| + |B|) over the trigrams of both, with multiplicity; 0 if one text is empty."""
    one, other = trigrams(a), trigrams(b)
    total = sum(one.values()) + sum(other.values())
    return 2 * sum((one & other).values()) / total if one and other else 0.0


def trigrams(text: str) -> Counter[str]:
    """Runs of three characters of a normalized text, padded with one space on each side; none of an empty text."""
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
    """One attribute: `importance` in [-1, 1], below 0 against a match, and `similarity` in [0, 1]."""

    name: str
    importance: float
    left: str
    right: str
    similarity: float

    def line(self, *, importance: bool, similarity: bool) -> str:
        """The attribute's line, with the requested numbers."""
        parts = [f"attribute={self.name}"]
        parts += [f"importance={_number(self.importance)}"] if importance else []
        parts += [f"values={self.left or MISSING}###{self.right or MISSING}"]
        parts += [f"similarity={_number(self.similarity)}"] if similarity else []
        return "|||".join(parts)


def read_structured(reply: str) -> list[ComparedAttribute] | None:
    """The attributes of a reply; None if a line breaks the format, a number its range, or there is none."""
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
    """An attribute's mean similarity in matching and in other pairs, if both sides have a value."""

    matching: float
    other: float

    def importance(self, alike: float) -> float:
        """The evidence of a similarity for a match: m - n at the mean m of matches, n - m at the mean n of others.

        It is linear between the two and constant beyond. An attribute that is no more similar in matches has 0.
        """
        apart = self.matching - self.other
        if apart <= 0:
            return 0.0
        middle = (self.matching + self.other) / 2
        return apart * max(-1.0, min(1.0, 2 * (alike - middle) / apart))


def attribute_means(pairs: Iterable[EntityPair]) -> dict[str, Means]:
    """The means of every attribute over labeled pairs; omitted for an attribute that one of the classes never has."""
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


def compare_strings(pair: EntityPair, means: Mapping[str, Means]) -> list[ComparedAttribute]:
    """Each attribute compared by its strings; a missing value has similarity and importance 0."""
    compared = []
    for name in pair.attributes:
        left, right = pair.left.get(name, ""), pair.right.get(name, "")
        alike = similarity(left, right)
        says = means[name].importance(alike) if left and right and name in means else 0.0
        compared.append(ComparedAttribute(name, says, left, right, alike))
    return compared


def _number(value: float) -> str:
    """Two decimals, without a minus before zero."""
    return f"{round(value, 2) + 0.0:.2f}"
