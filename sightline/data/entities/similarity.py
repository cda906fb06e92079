"""How alike two values of an attribute are, from 0 to 1, by letters alone: no model, no download.

The measure is the Dice coefficient of character trigrams, which is the same both ways. What a likeness says about a
pair is `pairs.matching.structured`.
"""

from collections import Counter

from sightline.data.texts import normalize


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
