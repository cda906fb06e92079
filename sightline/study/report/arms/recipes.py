"""The settings of each arm as its training's manifest holds them, directories of the study by what they are called.

Two arms that stand on the same piece say the same. In what they differ is `ingredients`; in words it is `methods`.
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from sightline.records.manifest import MANIFEST, Manifest, read_manifest
from sightline.study.config import StudyConfig
from sightline.study.evidence import Evidence
from sightline.study.plan import Piece

#: Settings that change how long a step takes and not what it gives.
_OF_THE_MACHINE = frozenset(
    {"checkpoint_every", "pass_tokens", "device", "activation_checkpointing", "track", "monitors"}
)


def recipe_of(evidence: Evidence, arm: str) -> dict[str, Any]:
    """What decides an arm: the settings of its pairs, its prompts, and its training's config, by the first seed.

    `pairs` has beside the builder's settings `called`, the name that the study gives them.
    """
    run = evidence.runs(arm)[0]
    piece = evidence.plan.pieces[run.train]
    told = manifest_of(evidence, piece.key)
    config = _readable(dict(told.config) if told else dict(piece.settings["config"]), evidence)
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
    """The manifest of a piece of the plan; None where its directory is gone."""
    folder = evidence.folder(key)
    return read_manifest(folder) if (folder / MANIFEST).exists() else None


def called(evidence: Evidence, key: str | None) -> str | None:
    """What the study calls a piece: its label without the seed; a directory of the user's by its last part."""
    if key is None:
        return None
    piece = evidence.plan.pieces.get(key)
    return Path(key).name if piece is None else name_of(piece)


def name_of(piece: Piece) -> str:
    """The label without the seed at its end."""
    return piece.label.removesuffix(f" {piece.seed}")


def _pairs(evidence: Evidence, key: str | None, model: str) -> dict[str, Any] | None:
    piece = None if key is None else evidence.plan.pieces.get(key)
    if piece is None:
        return None if key is None else {"called": Path(key).name}
    told = manifest_of(evidence, piece.key)
    config = told.config if told else piece.settings.get("config", {})
    return {
        "builder": piece.settings.get("builder"),
        "samples": called(evidence, piece.inputs.get("samples")),
        **_readable(config, evidence),
        "called": name_of(piece).removeprefix(f"{model}/"),  # what one's own model made is not another choice of pairs
    }


def _readable(value: Any, evidence: Evidence) -> Any:
    """The same with each directory of the study as its piece's name."""
    if isinstance(value, str):
        return next(
            (
                name_of(piece)
                for piece in evidence.plan.pieces.values()
                if value.removesuffix("/adapter").endswith(piece.mark)
            ),
            value,
        )
    if isinstance(value, Mapping):
        return {key: _readable(inner, evidence) for key, inner in value.items()}
    return [_readable(inner, evidence) for inner in value] if isinstance(value, list | tuple) else value
