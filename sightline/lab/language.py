"""Scene -> text: descriptions, captions, questions with their true answers, with the variety of several speakers.

Sentences come from templates with synonyms, several orders and lengths; `parser` reads them back into claims.
`ReferenceNoise` makes references imperfect on purpose, as real instruction data are, and the changes are recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from sightline.lab.words import (
    COLORS,
    COMPANION,
    COUNT_WORDS,
    KINDS,
    THEME_PHRASES,
    THEMES,
    article,
    plural,
    spoken_names,
)
from sightline.lab.world import IMAGE_SIZE, Scene, SceneObject

Box = tuple[int, int, int, int]


class ReferenceNoise(BaseModel):
    """Error rates of reference descriptions, as in LLaVA-Instruct (written without the picture)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    companion: float = Field(
        default=0.8, ge=0, le=1, description="where a kind stands without its companion: share that adds the companion"
    )
    absent_object: float = Field(
        default=0.1, ge=0, le=1, description="elsewhere: share of descriptions that add an absent object of the theme"
    )
    wrong_color: float = Field(default=0.03, ge=0, le=1, description="share of color words that are wrong")
    omitted: float = Field(default=0.03, ge=0, le=1, description="share of kinds that a description leaves out")


@dataclass(frozen=True)
class ObjectGroup:
    """All objects of one kind in a scene: they share a color. `where` is the center of the first, in pixels."""

    kind: str
    color: str
    count: int
    where: tuple[float, float]
    small: bool


@dataclass(frozen=True)
class LabQuestion:
    """A question about a scene with its true answer; `task` is yes-no, count, color or position."""

    task: str
    text: str
    answer: str
    about: str


def object_groups(scene: Scene) -> list[ObjectGroup]:
    """The scene's objects grouped by kind, in drawing order."""
    found: dict[str, list[SceneObject]] = {}
    for item in scene.objects:
        found.setdefault(item.kind, []).append(item)
    return [
        ObjectGroup(kind, items[0].color, len(items), items[0].center, all(o.size == "small" for o in items))
        for kind, items in found.items()
    ]


def horizontal(where: tuple[float, float]) -> str:
    """left, middle or right third of the picture."""
    return ("left", "middle", "right")[min(2, int(where[0] * 3 / IMAGE_SIZE))]


def vertical(where: tuple[float, float]) -> str:
    """top, middle or bottom third of the picture."""
    return ("top", "middle", "bottom")[min(2, int(where[1] * 3 / IMAGE_SIZE))]


def relation(a: tuple[float, float], b: tuple[float, float]) -> str | None:
    """The relation of a to b along the axis of larger distance; None if they are too close."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    if max(abs(dx), abs(dy)) < IMAGE_SIZE * 0.2:
        return None
    if abs(dx) >= abs(dy):
        return "left of" if dx > 0 else "right of"
    return "above" if dy > 0 else "below"


class Speaker:
    """Generates texts about scenes; every choice is drawn from the given generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(self._rng.integers(len(options)))]

    def phrase(self, group: ObjectGroup, definite: bool = False) -> str:
        """`a small red cup`, `two red cups`, `the red cup`."""
        name = self._pick(spoken_names(group.kind))
        noun = plural(name) if group.count > 1 else name
        size = "small " if group.small and group.count == 1 and self._rng.random() < 0.4 else ""
        if definite:
            return f"the {group.color + ' ' if self._rng.random() < 0.5 else ''}{noun}"
        if group.count > 1:
            return f"{COUNT_WORDS[group.count]} {group.color} {noun}"
        return f"{article(size or group.color)} {size}{group.color} {noun}"

    def describe(self, theme: str, groups: Sequence[ObjectGroup]) -> str:
        """A description of two to five sentences that names every group once, in a shuffled order."""
        left = [groups[i] for i in self._rng.permutation(len(groups))]
        sentences: list[str] = []
        first = left[: 2 if len(left) > 1 and self._rng.random() < 0.6 else 1]
        left = left[len(first) :]
        sentences.append(self._opening(theme, first))
        mentioned = list(first)
        while left:
            take = 2 if len(left) > 1 and (self._rng.random() < 0.4 or len(sentences) >= 4) else 1
            if len(sentences) >= 4:
                take = len(left)
            sentences.append(self._next_sentence(left[:take], mentioned))
            mentioned += left[:take]
            left = left[take:]
        remarks = [self._where(group) for group in first] + [self._mood()]
        while remarks and (len(sentences) < 2 or (len(sentences) < 5 and self._rng.random() < 0.25)):
            sentences.append(remarks.pop(0))
        return " ".join(sentences)

    def summary(self, theme: str, groups: Sequence[ObjectGroup]) -> str:
        """One sentence that names every group."""
        return self._opening(theme, [groups[i] for i in self._rng.permutation(len(groups))])

    def remark(self, groups: Sequence[ObjectGroup]) -> str:
        """A sentence that names nothing new: the place of one group, or a remark without content."""
        names_place = self._rng.random() < 0.7
        return self._where(groups[int(self._rng.integers(len(groups)))]) if names_place else self._mood()

    def caption(self, theme: str, groups: Sequence[ObjectGroup]) -> str:
        """One short sentence about at most three groups."""
        some = [groups[i] for i in self._rng.permutation(len(groups))[:3]]
        place = self._place(theme)
        form = self._pick(["{T} with {x}.", "{X} in {t}.", "A picture of {x}."])
        return form.format(t=place, T=_capital(place), x=self._list(some), X=_capital(self._list(some)))

    def _place(self, theme: str) -> str:
        """`a kitchen`, `an office`."""
        name = self._pick(THEME_PHRASES[theme])
        return f"{article(name)} {name}"

    def _list(self, groups: Sequence[ObjectGroup]) -> str:
        phrases = [self.phrase(g) for g in groups]
        return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]

    def _opening(self, theme: str, groups: Sequence[ObjectGroup]) -> str:
        place = self._place(theme)
        form = self._pick(
            ["This is {t} scene with {x}.", "The image shows {x} in {t}.", "In this {n} there {be} {x}.",
             "The picture shows {t} with {x}.", "{X} can be seen in {t}."]
        )  # fmt: skip
        listed = self._list(groups)
        name = place.split(" ", 1)[1]
        return form.format(t=place, n=name, x=listed, X=_capital(listed), be=_be(groups))

    def _next_sentence(self, groups: Sequence[ObjectGroup], mentioned: Sequence[ObjectGroup]) -> str:
        listed, be = self._list(groups), _be(groups)
        if len(groups) == 1 and self._rng.random() < 0.65:
            return self._placed_sentence(groups[0], mentioned)
        form = self._pick(
            ["There {be} also {x}.", "There {be} {x} as well.", "{X} can also be seen.", "The scene also includes {x}.",
             "In addition, there {be} {x}."]
        )  # fmt: skip
        return form.format(x=listed, X=_capital(listed), be=be)

    def _placed_sentence(self, group: ObjectGroup, mentioned: Sequence[ObjectGroup]) -> str:
        other = mentioned[int(self._rng.integers(len(mentioned)))]
        relative = relation(group.where, other.where) if group.count == other.count == 1 else None
        phrase = self.phrase(group)
        if relative and self._rng.random() < 0.6:
            where = relation_phrase(relative, self.phrase(other, definite=True), self._rng)
        else:
            where = place_phrase(group.where, self._rng)
        be = _be([group])
        form = self._pick(["There {be} {x} {w}.", "{W}, there {be} {x}.", "{X} {be} {w}."])
        return form.format(be=be, x=phrase, X=_capital(phrase), w=where, W=_capital(where))

    def _where(self, group: ObjectGroup) -> str:
        """`The red cup is on the left.`: names nothing new."""
        return f"{_capital(self.phrase(group, definite=True))} {_be([group])} {place_phrase(group.where, self._rng)}."

    def _mood(self) -> str:
        """A closing remark without content."""
        return self._pick(
            ["The scene is calm.", "Nothing else stands out.", "It looks like a quiet day.", "The background is plain."]
        )


def place_phrase(where: tuple[float, float], rng: np.random.Generator) -> str:
    """`on the left`, `at the top right`, `in the middle`."""
    h, v = horizontal(where), vertical(where)
    if h == "middle" and v == "middle":
        return ("in the middle", "in the center")[int(rng.integers(2))]
    if h == "middle":
        return f"at the {v}"
    if v == "middle":
        return (f"on the {h}", f"on the {h} side")[int(rng.integers(2))]
    return (f"at the {v} {h}", f"in the {v} {h} corner")[int(rng.integers(2))]


def relation_phrase(relative: str, other: str, rng: np.random.Generator) -> str:
    """`to the left of the cup`, `above the plate`."""
    forms = {
        "left of": (f"to the left of {other}", f"left of {other}"),
        "right of": (f"to the right of {other}", f"right of {other}"),
        "above": (f"above {other}", f"higher up than {other}"),
        "below": (f"below {other}", f"under {other}"),
    }[relative]
    return forms[int(rng.integers(2))]


def noisy_groups(
    rng: np.random.Generator, theme: str, groups: Sequence[ObjectGroup], noise: ReferenceNoise
) -> tuple[list[ObjectGroup], list[str]]:
    """The groups as an imperfect annotator describes them, and the absent kinds among them."""
    kept = [g for g in groups if rng.random() >= noise.omitted] or [groups[0]]
    recolored = [
        ObjectGroup(g.kind, str(rng.choice([c for c in COLORS if c != g.color])), g.count, g.where, g.small)
        if rng.random() < noise.wrong_color
        else g
        for g in kept
    ]
    present = {g.kind for g in groups}
    companions = [COMPANION[g.kind] for g in groups if g.kind in COMPANION and COMPANION[g.kind] not in present]
    if rng.random() >= (noise.companion if companions else noise.absent_object):
        return recolored, []
    candidates = companions or [k for k in THEMES[theme] if k not in present] or [k for k in KINDS if k not in present]
    kind = str(rng.choice(candidates))
    where = (float(rng.uniform(12, 84)), float(rng.uniform(12, 84)))
    return [*recolored, ObjectGroup(kind, str(rng.choice(list(COLORS))), 1, where, False)], [kind]


def _be(groups: Sequence[ObjectGroup]) -> str:
    return "is" if len(groups) == 1 and groups[0].count == 1 else "are"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
