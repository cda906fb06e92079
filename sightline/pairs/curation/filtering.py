"""What is kept of what was scored: the best share of each type. Pure; scores come from `scoring`."""

import math
from collections.abc import Mapping


def keep_best(
    scores: Mapping[str, float | None], types: Mapping[str, str], share: float, shares: Mapping[str, float]
) -> set[str]:
    """The best of each type, by id: `share` of it, or what `shares` says of the type; at least one.

    The number kept is rounded down, of all that are of the type, those without a score among them, which are never
    kept. Of equal scores the smaller id is kept.
    """
    groups: dict[str, list[str]] = {}
    for name in scores:
        groups.setdefault(types[name], []).append(name)
    kept: set[str] = set()
    for kind, names in groups.items():
        scored = sorted((-score, name) for name in names if (score := scores[name]) is not None)
        number = max(1, math.floor(len(names) * shares.get(kind, share) + 1e-9))
        kept |= {name for _, name in scored[:number]}
    return kept


def best_of(scores: list[list[float | None]]) -> tuple[float | None, tuple[int, ...]]:
    """`[turn][candidate]` scores -> the mean over turns of the best candidate's, and which candidate that is.

    None where a turn has no scored candidate; of equal scores the first candidate is taken.
    """
    best: list[tuple[float, int]] = []
    for turn in scores:
        scored = [(score, -place) for place, score in enumerate(turn) if score is not None]
        if not scored:
            return None, ()
        score, place = max(scored)
        best.append((score, -place))
    return sum(score for score, _ in best) / len(best), tuple(place for _, place in best)
