"""A string rule that needs no model: two records match if their texts share enough trigrams.

Its one threshold is learned on training rows. The benchmark shows its F1 beside the models', since a dataset that it
solves says little about them.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from sightline.errors import InputError
from sightline.recipes.matching.entities.pairs import EntityPair
from sightline.recipes.matching.structured import similarity
from sightline.records.rows import Row
from sightline.records.store import read_json, write_json

#: The file of a rule, beside the samples.
RULE = "string_rule.json"


class StringRule(Row):
    """`threshold` is the least Dice coefficient of trigrams of a match; `f1` is the score on its training rows."""

    threshold: float
    rows: int
    f1: float

    def matches(self, pair: EntityPair) -> bool:
        """Whether the rule calls a pair a match."""
        return likeness(pair) >= self.threshold


def likeness(pair: EntityPair) -> float:
    """The Dice coefficient of the trigrams of both records, as a model reads them."""
    return similarity(*pair.texts)


def learn_rule(pairs: Sequence[EntityPair]) -> StringRule:
    """The threshold with the highest F1, in the middle of the widest gap between two likenesses that reaches it."""
    order = sorted(((likeness(pair), pair.match) for pair in pairs), reverse=True)
    matches = sum(match for _, match in order)
    best, found = (-1.0, 0.0), 1.0
    hits = 0
    for positives, (value, match) in enumerate(order, 1):
        hits += match
        below = order[positives][0] if positives < len(order) else 0.0
        if value == below and positives < len(order):
            continue  # no threshold separates equal values
        f1 = 2 * hits / (positives + matches)
        if (f1, value - below) > best:
            best, found = (f1, value - below), (value + below) / 2
    return StringRule(threshold=found, rows=len(order), f1=max(0.0, best[0]))


def write_rule(rule: StringRule, folder: Path) -> None:
    """Write the rule beside the samples in the folder."""
    write_json(folder / RULE, rule.model_dump(mode="json"))


def read_rule(folder: Path) -> StringRule | None:
    """The rule in the folder, or None.

    Raises:
        InputError: the file holds no rule.
    """
    path = folder / RULE
    if not path.is_file():
        return None
    try:
        return StringRule.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(
            f"{path} holds no string rule; create the samples again with `sightline match read`"
        ) from error
