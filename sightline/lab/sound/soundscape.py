"""A scene with what is heard there: some of its audible objects, and sources that are off screen.

A pure function of (world, split, index). Of each soundscape something is both seen and heard, something only seen, and
something only heard, so that no kind of media can stand for the other; scenes without two audible kinds have none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.lab.samples import draw_once, image_path
from sightline.lab.sound.voices import AUDIBLE, Source, render_sound
from sightline.lab.vocabulary import WorldConfig
from sightline.lab.world import Scene, sample_scene, scene_rng
from sightline.records.hashing import hash_json

_PURPOSE = 12  # number of this use of a scene's random streams
PICTURE, SOUND = "picture", "sound"


@dataclass(frozen=True)
class Soundscape:
    """A scene and its sources; the kinds that are in it by how they show: `shared`, `seen` only, `heard` only.

    All three are audible kinds, each with at least one member.
    """

    scene: Scene
    sources: tuple[Source, ...]
    look: int

    @property
    def shared(self) -> tuple[str, ...]:
        return tuple(source.kind for source in self.sources if source.kind in self.scene.kinds)

    @property
    def heard(self) -> tuple[str, ...]:
        return tuple(source.kind for source in self.sources if source.kind not in self.scene.kinds)

    @property
    def seen(self) -> tuple[str, ...]:
        return tuple(kind for kind in AUDIBLE if kind in self.scene.kinds and kind not in self.shared)

    @property
    def neither(self) -> tuple[str, ...]:
        """Audible kinds that are neither seen nor heard."""
        return tuple(kind for kind in AUDIBLE if kind not in {*self.shared, *self.seen, *self.heard})


def sample_soundscape(world: WorldConfig, split: str, index: int) -> Soundscape | None:
    """The soundscape of a scene, None where fewer than two of its kinds are audible."""
    scene, rng = sample_scene(world, split, index), scene_rng(world, split, index, _PURPOSE)
    visible = [kind for kind in AUDIBLE if kind in scene.kinds]
    if len(visible) < 2:
        return None
    sounding = rng.permutation(visible)[: int(rng.integers(1, min(len(visible), 3)))]
    elsewhere = rng.permutation([kind for kind in AUDIBLE if kind not in visible])[: int(rng.integers(1, 3))]
    sources = tuple(Source(str(kind), int(rng.integers(2**31))) for kind in (*sounding, *elsewhere))
    return Soundscape(scene, sources, int(rng.integers(2**31)))


def soundscapes(world: WorldConfig, split: str, count: int) -> Iterator[Soundscape]:
    """The first `count` of a split."""
    index, left = 0, count
    while left:
        made = sample_soundscape(world, split, index)
        index += 1
        if made is not None:
            left -= 1
            yield made


def media_paths(folder: Path, made: Soundscape) -> dict[str, str]:
    """Draw picture and sound into `folder` unless they are there; their paths relative to it, by kind."""
    told = [[source.kind, source.look] for source in made.sources]
    relative = f"sounds/{made.scene.id}-{hash_json([told, made.look])[:8]}.png"
    draw_once(folder / relative, lambda: render_sound(made.sources, made.look))
    return {PICTURE: image_path(folder, made.scene), SOUND: relative}


def question_rng(world: WorldConfig, made: Soundscape, purpose: int) -> np.random.Generator:
    """The random stream of the questions on a soundscape."""
    return scene_rng(world, made.scene.split, made.scene.index, 100 + purpose)
