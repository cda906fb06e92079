"""Which pairs are for training, validation and test, and an order in which every beginning has the share of matches.

Both go by label and seed alone. Pairs that share a record may fall into different parts, as in Deepmatcher's splits.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from sightline.data.entities.pairs import EntityPair

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_SPLIT, _ORDER = 2701, 2702  # purposes of the random streams


def split_of(pairs: Sequence[EntityPair], split: Split, shares: tuple[int, int, int], seed: int) -> list[EntityPair]:
    """The part of the pairs that is `split`, as they stood: of matches and of others the same shares, drawn by seed."""
    rng = np.random.default_rng([seed, _SPLIT])
    wanted = SPLITS.index(split)
    chosen: list[int] = []
    for label in (True, False):
        places = [place for place, pair in enumerate(pairs) if pair.match is label]
        drawn = rng.permutation(places).tolist()
        bounds = [round(len(drawn) * sum(shares[:count]) / sum(shares)) for count in range(len(SPLITS) + 1)]
        chosen += drawn[bounds[wanted] : bounds[wanted + 1]]
    return [pairs[place] for place in sorted(chosen)]


def stratified(pairs: Sequence[EntityPair], seed: int) -> list[EntityPair]:
    """The pairs in an order drawn by seed in which the first n have the share of matches that all have, for every n.

    So whoever takes the first rows takes a stratified sample.
    """
    rng = np.random.default_rng([seed, _ORDER])
    placed: list[tuple[float, int, EntityPair]] = []
    for order, label in enumerate((True, False)):
        same = [pair for pair in pairs if pair.match is label]
        drawn = [same[place] for place in rng.permutation(len(same))]
        placed += [((rank + 0.5) / len(drawn), order, pair) for rank, pair in enumerate(drawn)]
    return [pair for _, _, pair in sorted(placed, key=lambda one: one[:2])]
