"""A rule of strings that needs no model: two records match where their texts share enough trigrams.

Its one threshold is learned on training rows. A benchmark shows its F1 beside the models', since a data set on which it
is right throughout says little about them.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from sightline.errors import InputError
from sightline.recipes.matching.entities.pairs import EntityPair
from sightline.recipes.matching.structured import similarity
from sightline.records.rows import Row
from sightline.records.store import read_json, write_json

#: The file of a rule, beside the samples that it is asked about.
RULE = "string_rule.json"


class StringRule(Row):
    """`threshold` is the least Dice coefficient of trigrams that is a match; `f1` is its score on its training rows."""

    threshold: float
    rows: int
    f1: float

    def matches(self, pair: EntityPair) -> bool:
        """What the rule says of a pair."""
        return likeness(pair) >= self.threshold


def likeness(pair: EntityPair) -> float:
    """The Dice coefficient of the trigrams of both records, as a model reads them."""
    return similarity(*pair.texts)


def learn_rule(pairs: Sequence[EntityPair]) -> StringRule:
    """The threshold of the highest F1, in the middle of the widest gap between two likenesses that has it."""
    order = sorted(((likeness(pair), pair.match) for pair in pairs), reverse=True)
    matches = sum(match for _, match in order)
    best, found = (-1.0, 0.0), 1.0
    hits = 0
    for said, (value, match) in enumerate(order, 1):
        hits += match
        below = order[said][0] if said < len(order) else 0.0
        if value == below and said < len(order):
            continue  # no threshold parts equal values
        f1 = 2 * hits / (said + matches)
        if (f1, value - below) > best:
            best, found = (f1, value - below), (value + below) / 2
    return StringRule(threshold=found, rows=len(order), f1=max(0.0, best[0]))


def write_rule(rule: StringRule, folder: Path) -> None:
    """Put the rule beside the samples in the folder."""
    write_json(folder / RULE, rule.model_dump(mode="json"))


def read_rule(folder: Path) -> StringRule | None:
    """The rule in the folder, None where there is none.

    Raises:
        InputError: the file holds none.
    """
    path = folder / RULE
    if not path.is_file():
        return None
    try:
        return StringRule.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(f"{path} holds no string rule; make the samples again with `sightline match read`") from error
