"""In what the arms of a study differ: each pair of arms that differ in one thing alone, and what that thing is.

It compares settings and knows no number. What the one thing does is `effects`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

#: What comes or goes with another choice and is no ingredient of its own: policies that answer need prompts in place of
#: pairs, a loss with several references needs them. Only where one side has none of it at all.
_COMES_WITH = {"pairs": ("source", "rl"), "samples": ("source", "rl"), "references": ("loss",), "rl": ("loss",)}
_LONGEST = 60

Recipe = Mapping[str, Any]


class Contrast(NamedTuple):
    """One ingredient at two levels, and every pair of arms (at the first level, at the second) that share the rest."""

    ingredient: str
    before: str
    after: str
    pairings: tuple[tuple[str, str], ...]


class _Difference(NamedTuple):
    ingredient: str
    levels: tuple[Any, Any]


def contrasts(
    recipes: Mapping[str, Recipe], axes: Mapping[str, Mapping[str, str]] | None = None, first: str | None = None
) -> list[Contrast]:
    """Every ingredient that some two arms differ in alone, each of its levels against the first one.

    `recipes` has an arm's settings, its `pairs` among them; `axes` the level of each axis, for arms that combine axes:
    between two of these an axis is one ingredient, whatever it sets. The first level is that of the arm `first` (the
    baseline), or else of the arm that comes first. A level that no arm shares the rest of with the first is held
    against the earliest level that has such arms.
    """
    axes = axes or {}
    order = sorted(recipes, key=lambda arm: arm != first)  # stable: the others stay in their order
    levels: dict[str, dict[str, Any]] = {}
    pairings: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for one, other in combinations(order, 2):
        found = _only_difference(one, other, recipes, axes)
        if found is None:
            continue
        known = levels.setdefault(found.ingredient, {})
        keys = [json.dumps(level, sort_keys=True, default=str) for level in found.levels]
        for key, level in zip(keys, found.levels, strict=True):
            known.setdefault(key, level)
        places = list(known)
        swapped = places.index(keys[0]) > places.index(keys[1])
        arms = (other, one) if swapped else (one, other)
        low, high = sorted(keys, key=places.index)
        pairings.setdefault((found.ingredient, low, high), []).append(arms)
    return [
        Contrast(ingredient, texts[low], texts[high], tuple(pairings[ingredient, low, high]))
        for ingredient, known in levels.items()
        for texts in [_level_texts(known)]
        for low, high in _chosen(list(known), ingredient, pairings)
    ]


def differences(one: Recipe, other: Recipe, path: str = "") -> dict[str, tuple[Any, Any]]:
    """The settings in which two nested mappings differ, by their dotted names, with both values.

    A section that says by `name` what it is counts as one setting where the names differ, since its other keys belong
    to the name; so does a section that one side lacks.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys((*one, *other)):
        mine, theirs = one.get(key), other.get(key)
        if mine == theirs:
            continue
        name = f"{path}{key}"
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping) and mine.get("name") == theirs.get("name"):
            found |= differences(mine, theirs, f"{name}.")
        else:
            found[name] = (mine, theirs)
    return found


def level_text(level: Any) -> str:
    """A setting's value in a few words: a section by its name, a list by its members."""
    if isinstance(level, Mapping):
        name = level.get("name")
        return (
            str(name) if name is not None else _shortened(", ".join(f"{k} {level_text(v)}" for k, v in level.items()))
        )
    if isinstance(level, bool):
        return "yes" if level else "no"
    if isinstance(level, float):
        return f"{level:g}"
    if isinstance(level, Sequence) and not isinstance(level, str):
        return _shortened(" + ".join(map(level_text, level)) or "none")
    return "none" if level is None else _shortened(str(level))


def _only_difference(
    one: str, other: str, recipes: Mapping[str, Recipe], axes: Mapping[str, Mapping[str, str]]
) -> _Difference | None:
    if one in axes and other in axes:
        differing = [axis for axis in axes[one] if axes[one][axis] != axes[other].get(axis)]
        if len(differing) != 1:
            return None
        axis = differing[0]
        return _Difference(axis, (axes[one][axis], axes[other].get(axis)))
    found = dict(_whole_pairs(differences(recipes[one], recipes[other]), recipes[one], recipes[other]))
    for name, owners in _COMES_WITH.items():
        if name in found and any(not side for side in found[name]) and any(_begins(found, owner) for owner in owners):
            del found[name]
    if len(found) != 1:
        return None
    ingredient, levels = next(iter(found.items()))
    return _Difference(ingredient, levels)


def _whole_pairs(
    found: Mapping[str, tuple[Any, Any]], one: Recipe, other: Recipe
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Pairs that differ in several settings are other pairs, and that is one thing."""
    inside = [name for name in found if name.startswith("pairs.") and name != "pairs.called"]
    yield from ((name, levels) for name, levels in found.items() if not name.startswith("pairs."))
    if len(inside) == 1:
        yield inside[0], found[inside[0]]
    elif inside or "pairs.called" in found:
        yield "pairs", (one["pairs"].get("called"), other["pairs"].get("called"))


def _begins(found: Mapping[str, Any], owner: str) -> bool:
    return any(name == owner or name.startswith(f"{owner}.") for name in found)


def _chosen(
    known: Sequence[str], ingredient: str, pairings: Mapping[tuple[str, str, str], object]
) -> Iterator[tuple[str, str]]:
    """For each level but the first, the earliest level that it can be held against."""
    for place, high in enumerate(known):
        low = next((low for low in known[:place] if (ingredient, low, high) in pairings), None)
        if low is not None:
            yield low, high


def _level_texts(known: Mapping[str, Any]) -> dict[str, str]:
    """Each level in words; levels that would read alike are told in full."""
    texts = {key: level_text(level) for key, level in known.items()}
    twice = {text for text in texts.values() if list(texts.values()).count(text) > 1}
    return {key: _in_full(known[key]) if text in twice else text for key, text in texts.items()}


def _in_full(level: Any) -> str:
    if not isinstance(level, Mapping):
        return _shortened(json.dumps(level, default=str))
    rest = [f"{key} {level_text(value)}" for key, value in level.items() if key != "name"]
    return _shortened(", ".join([str(level.get("name", "")), *rest]))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
