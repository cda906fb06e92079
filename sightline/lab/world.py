"""Sampling of scenes: objects, positions and colors, with complete ground truth.

A scene is a pure function of (world config, split, index). Splits draw from disjoint seed sequences, so splits share no
scene; `drawing.render` turns a scene into pixels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from sightline.lab.words import COLORS, COMPANION, KINDS, SIZES, THEME_OF, THEMES, WorldConfig, favorite_color

IMAGE_SIZE = 96
LATTICE = 4  # object corners lie on multiples of this many pixels, which makes perception cheaper to learn
Mode = Literal["natural", "counter", "unbiased"]

#: split -> (number in the seed sequence, co-occurrence mode). Numbers are never reused.
SPLITS: dict[str, tuple[int, Mode]] = {
    "perception": (1, "unbiased"),
    "train": (2, "natural"),
    "preference": (3, "natural"),
    "validation": (4, "natural"),
    "test": (5, "natural"),
    "counter-validation": (6, "counter"),
    "counter-test": (7, "counter"),
    "probe": (8, "unbiased"),
}


@dataclass(frozen=True)
class SceneObject:
    """One object. `box` is (left, top, right, bottom) in pixels of the 96 px image; `look` seeds its drawing."""

    kind: str
    color: str
    size: str
    box: tuple[int, int, int, int]
    look: int

    @property
    def center(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Scene:
    """A scene with its complete truth; objects are ordered from back to front."""

    split: str
    index: int
    theme: str
    objects: tuple[SceneObject, ...]
    look: int

    @property
    def id(self) -> str:
        return f"{self.split}-{self.index:06d}"

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(o.kind for o in self.objects)

    def count(self, kind: str) -> int:
        return sum(o.kind == kind for o in self.objects)

    def to_truth(self) -> dict[str, Any]:
        """The ground truth as plain JSON values, the `truth` column of a lab sample."""
        return asdict(self)

    @staticmethod
    def from_truth(truth: dict[str, Any]) -> "Scene":
        """Inverse of `to_truth`."""
        objects = tuple(SceneObject(**{**o, "box": tuple(o["box"])}) for o in truth["objects"])
        return Scene(truth["split"], truth["index"], truth["theme"], objects, truth["look"])


def scene_rng(config: WorldConfig, split: str, index: int, purpose: int = 0) -> np.random.Generator:
    """The random stream of one scene; `purpose` separates its layout (0) from its language (1, 2, ...)."""
    return np.random.default_rng([config.seed, SPLITS[split][0], index, purpose])


def sample_scene(config: WorldConfig, split: str, index: int) -> Scene:
    """Draw scene `index` of `split`; the same arguments give the same scene on every machine."""
    rng = scene_rng(config, split, index)
    theme = _draw_theme(rng, config, split)
    kinds = _draw_kinds(rng, config, split, theme)
    objects = _place(rng, config, kinds)
    return Scene(split, index, theme, objects, int(rng.integers(2**31)))


def scenes(config: WorldConfig, split: str, count: int, start: int = 0) -> Iterator[Scene]:
    """Scenes `start` to `start + count - 1` of a split, one at a time."""
    for index in range(start, start + count):
        yield sample_scene(config, split, index)


def theme_frequencies(config: WorldConfig) -> dict[str, float]:
    """Probability of each theme."""
    return _geometric_weights(THEMES, config.theme_decay)


def theme_weights(config: WorldConfig, theme: str) -> dict[str, float]:
    """Probability of each kind of a theme, before companions."""
    return _geometric_weights(THEMES[theme], config.rank_decay)


def _geometric_weights(names: Iterable[str], decay: float) -> dict[str, float]:
    raw = {name: decay**rank for rank, name in enumerate(names)}
    total = sum(raw.values())
    return {name: weight / total for name, weight in raw.items()}


def _draw_theme(rng: np.random.Generator, config: WorldConfig, split: str) -> str:
    if SPLITS[split][1] == "unbiased":
        return str(rng.choice(list(THEMES)))
    frequencies = theme_frequencies(config)
    return str(rng.choice(list(frequencies), p=list(frequencies.values())))


def _draw_kinds(rng: np.random.Generator, config: WorldConfig, split: str, theme: str) -> list[str]:
    """Kinds in drawing order, with repeats."""
    # Perception scenes are full: the vision tower learns from every object, and the count carries no information.
    target = config.max_objects if split == "perception" else int(rng.integers(1, config.max_objects + 1))
    mode = SPLITS[split][1]
    kinds: list[str] = []
    while len(kinds) < target:
        if kinds and rng.random() < config.twin:
            kinds.append(kinds[-1])
        elif mode == "natural":
            kinds.append(_natural_kind(rng, config, theme, kinds))
        elif mode == "unbiased":
            kinds.append(str(rng.choice(KINDS)))
        else:
            kinds.append(_counter_kind(rng, theme, kinds))
    return kinds


def _natural_kind(rng: np.random.Generator, config: WorldConfig, theme: str, present: list[str]) -> str:
    lone = [COMPANION[k] for k in present if k in COMPANION and COMPANION[k] not in present]
    if lone and rng.random() < config.companion:
        return lone[-1]
    if rng.random() < config.theme_share:
        weights = theme_weights(config, theme)
        return str(rng.choice(list(weights), p=list(weights.values())))
    return str(rng.choice(KINDS))


def _counter_kind(rng: np.random.Generator, theme: str, present: list[str]) -> str:
    """One object of the theme as a cue; all others come from unused themes, so never with a companion."""
    if not present:
        return str(rng.choice(THEMES[theme]))
    used_themes = {THEME_OF[k] for k in present}
    strangers = [k for k in KINDS if THEME_OF[k] not in used_themes]
    return str(rng.choice(strangers))


def _place(rng: np.random.Generator, config: WorldConfig, kinds: list[str]) -> tuple[SceneObject, ...]:
    """Place objects one by one; a position that would hide another object too much is redrawn."""
    color_of: dict[str, str] = {}
    placed: list[SceneObject] = []
    for kind in kinds:
        color = color_of.setdefault(kind, _draw_color(rng, config, kind))
        for attempt in range(60):
            size = _draw_size(rng, config) if attempt < 30 else "small"
            side = int(rng.integers(SIZES[size][0], SIZES[size][1] + 1))
            x, y = (int(v) * LATTICE for v in rng.integers(0, (IMAGE_SIZE - side) // LATTICE + 1, size=2))
            box = (x, y, x + side, y + side)
            if all(_overlap(box, other.box) <= 1 - config.min_visible for other in placed):
                placed.append(SceneObject(kind, color, size, box, int(rng.integers(2**31))))
                break
    return tuple(placed)


def _draw_color(rng: np.random.Generator, config: WorldConfig, kind: str) -> str:
    if rng.random() < config.favorite:
        return favorite_color(kind)
    return str(rng.choice(list(COLORS)))


def _draw_size(rng: np.random.Generator, config: WorldConfig) -> str:
    if rng.random() < config.small:
        return "small"
    return str(rng.choice(["medium", "large"]))


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Intersection over the smaller box; bounds the share of either object that the other can hide."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / smaller
