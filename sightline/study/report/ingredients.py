"""Ingredients of a study: pairs of arms that differ in a single setting, and the effect of that setting."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

from sightline.evals.comparison import MetricDifference, compare_metrics, with_holm
from sightline.evals.statistics import RESAMPLES
from sightline.records.manifest import MANIFEST, Manifest, read_manifest
from sightline.records.rows import Estimate
from sightline.study.config import StudyConfig
from sightline.study.plan import Job
from sightline.study.results import Evidence

#: Settings that another choice requires, so they are not ingredients themselves: online policies need prompts in place
#: of pairs, a loss with several references needs them. Applies only if one side lacks the setting.
_COMES_WITH = {"pairs": ("source", "rl"), "samples": ("source", "rl"), "references": ("loss",), "rl": ("loss",)}
_LONGEST = 60

Recipe = Mapping[str, Any]


class IngredientContrast(NamedTuple):
    """One ingredient at two levels, and every pair of arms (first level, second level) that agree in the rest."""

    ingredient: str
    before: str
    after: str
    pairings: tuple[tuple[str, str], ...]


class _Difference(NamedTuple):
    ingredient: str
    levels: tuple[Any, Any]


def contrasts(
    recipes: Mapping[str, Recipe], axes: Mapping[str, Mapping[str, str]] | None = None, first: str | None = None
) -> list[IngredientContrast]:
    """Every ingredient in which alone two arms differ, each level compared with the first one.

    `recipes` has each arm's settings, including its `pairs`; `axes` has the level of each axis for arms that combine
    axes: between two of these, an axis is one ingredient, whatever it sets. The first level is that of the arm `first`
    (the baseline), or else of the first arm. A level without a matching arm at the first level is compared with the
    earliest level that has one.
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
        IngredientContrast(ingredient, texts[low], texts[high], tuple(pairings[ingredient, low, high]))
        for ingredient, known in levels.items()
        for texts in [_level_texts(known)]
        for low, high in _chosen(list(known), ingredient, pairings)
    ]


def differences(one: Recipe, other: Recipe, path: str = "") -> dict[str, tuple[Any, Any]]:
    """The settings in which two nested mappings differ, by dotted name, with both values.

    A section with different `name` on the two sides counts as one setting, since its other keys depend on the name; so
    does a section that one side lacks.
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
    """A setting's value as short text: a section by its name, a list by its members."""
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
    """Pairs that differ in several settings count as one difference."""
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
    """For each level but the first, the earliest level that it can be compared with."""
    for place, high in enumerate(known):
        low = next((low for low in known[:place] if (ingredient, low, high) in pairings), None)
        if low is not None:
            yield low, high


def _level_texts(known: Mapping[str, Any]) -> dict[str, str]:
    """Each level as text; levels with equal short text are written in full."""
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


class Effect(MetricDifference):
    """One metric's difference between two levels of an ingredient, `after` minus `before`.

    `pairings` are the arms compared, each with the same seed and on the same images; where there are several, numbers
    are their mean. `p_holm` is corrected over all effects of the study in primary metrics that have a direction: those
    that are shown.
    """

    ingredient: str
    before: str
    after: str
    pairings: tuple[tuple[str, str], ...]
    benchmark: str
    metric: str
    difference: Estimate


def compute_effects(
    evidence: Evidence, found: Sequence[IngredientContrast], resamples: int = RESAMPLES
) -> tuple[Effect, ...]:
    """Every metric of every contrast."""
    effects = [effect for contrast in found for effect in _effects(evidence, contrast, resamples)]
    return with_holm(effects, lambda effect: effect.primary and effect.higher_is_better is not None)


def _effects(evidence: Evidence, contrast: IngredientContrast, resamples: int) -> list[Effect]:
    """Runs are ordered by setting, and within one by seed, as `compare` wants them."""
    runs = [
        pair
        for before, after in contrast.pairings
        for pair in zip(evidence.arms[before], evidence.arms[after], strict=True)
    ]
    settings = len(contrast.pairings)
    return [
        Effect.of(metric, found, **contrast._asdict(), benchmark=benchmark, metric=name)
        for benchmark in runs[0][0]
        for name, metric, found in compare_metrics(runs, benchmark, settings=settings, resamples=resamples)
    ]


#: Settings that affect the speed and not the result of a step.
_OF_THE_MACHINE = frozenset(
    {"checkpoint_every", "pass_tokens", "device", "activation_checkpointing", "track", "monitors"}
)


def arm_recipe(evidence: Evidence, arm: str) -> dict[str, Any]:
    """The settings that define an arm: its pairs, its prompts and its training config, for the first seed.

    `pairs` has the builder's settings, and as `called` the study's name for the pairs.
    """
    run = evidence.runs(arm)[0]
    piece = evidence.plan.jobs[run.train]
    manifest = manifest_of(evidence, piece.key)
    config = _readable(dict(manifest.config) if manifest else dict(piece.settings["config"]), evidence)
    return {
        "model": run.model or None,
        "pairs": _pairs(evidence, piece.inputs.get("pairs"), run.model),
        "samples": called(evidence, piece.inputs.get("samples")),
        **{key: value for key, value in config.items() if key not in _OF_THE_MACHINE},
    }


def axis_levels(config: StudyConfig) -> dict[str, dict[str, str]]:
    """The level of every axis, for each arm that combines them."""
    if not config.axes:
        return {}
    return {
        "+".join(levels): dict(zip(config.axes, levels, strict=True))
        for levels in product(*config.axes.values())
        if "+".join(levels) not in config.arms
    }


def manifest_of(evidence: Evidence, key: str) -> Manifest | None:
    """The manifest of a job of the plan; None if its directory is gone."""
    folder = evidence.folder(key)
    return read_manifest(folder) if (folder / MANIFEST).exists() else None


def manifests(evidence: Evidence) -> list[Manifest]:
    """The manifests of all finished jobs of the study."""
    return [found for key in evidence.plan.jobs if (found := manifest_of(evidence, key)) is not None]


def revisions(found: Sequence[Manifest]) -> list[str]:
    """Every code revision that wrote a manifest, once."""
    return list(dict.fromkeys(manifest.git_revision for manifest in found if manifest.git_revision))


def called(evidence: Evidence, key: str | None) -> str | None:
    """The study's name for a job (its label without the seed), or the last part of a user's directory."""
    if key is None:
        return None
    piece = evidence.plan.jobs.get(key)
    return Path(key).name if piece is None else job_name(piece)


def job_name(piece: Job) -> str:
    """The label without its seed."""
    return piece.label.removesuffix(f" {piece.seed}")


def _pairs(evidence: Evidence, key: str | None, model: str) -> dict[str, Any] | None:
    piece = None if key is None else evidence.plan.jobs.get(key)
    if piece is None:
        return None if key is None else {"called": Path(key).name}
    manifest = manifest_of(evidence, piece.key)
    config = manifest.config if manifest else piece.settings.get("config", {})
    return {
        "builder": piece.settings.get("builder"),
        "samples": called(evidence, piece.inputs.get("samples")),
        **_readable(config, evidence),
        "called": job_name(piece).removeprefix(f"{model}/"),  # pairs built by the arm's own model are the same choice
    }


def _readable(value: Any, evidence: Evidence) -> Any:
    """The value with directories of the study replaced by their jobs' names."""
    if isinstance(value, str):
        return next(
            (
                job_name(piece)
                for piece in evidence.plan.jobs.values()
                if value.removesuffix("/adapter").endswith(piece.mark)
            ),
            value,
        )
    if isinstance(value, Mapping):
        return {key: _readable(inner, evidence) for key, inner in value.items()}
    return [_readable(inner, evidence) for inner in value] if isinstance(value, list | tuple) else value
