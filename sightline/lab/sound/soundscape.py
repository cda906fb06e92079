"""Soundscapes: a scene with the sounds of some of its audible objects and of off-screen sources.

A pure function of (world, split, index). Each soundscape has something seen and heard, something only seen, and
something only heard, so that neither medium can replace the other; scenes with fewer than two audible kinds have none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.lab.samples import draw_once, image_path
from sightline.lab.words import WorldConfig
from sightline.lab.world import Scene, sample_scene, scene_rng
from sightline.records.hashing import hash_json

SIDE = 48
PATCH = 12  # 4 x 4 tokens
_WIDTH = 0.7  # of a partial, in bins
_LEAST = 0.015  # smallest mean energy for a source to count as sounding in a patch


@dataclass(frozen=True)
class KindVoice:
    """A tone of `partials` from bin `base` on, `step` bins apart, each weaker than the one below.

    It sounds for the first `duty` of every `period` frames (0: without a pause), and rises by `glide` bins meanwhile.
    """

    base: float
    step: float
    partials: int
    period: float
    duty: float = 1.0
    glide: float = 0.0


VOICES: dict[str, KindVoice] = {
    "kettle": KindVoice(36, 5, 2, 0, glide=4),
    "pan": KindVoice(20, 2.5, 9, 3, 0.5),
    "car": KindVoice(6, 4, 4, 0, glide=3),
    "bus": KindVoice(3, 3, 5, 16, 0.8, -1),
    "bicycle": KindVoice(40, 3, 2, 5, 0.4),
    "cow": KindVoice(9, 5, 5, 24, 0.7, -4),
    "tractor": KindVoice(2, 2, 8, 4, 0.5),
    "pig": KindVoice(14, 6, 3, 8, 0.5, 3),
    "hen": KindVoice(27, 7, 2, 6, 0.35, 5),
    "boat": KindVoice(4, 8, 4, 0),
    "laptop": KindVoice(31, 0, 1, 12, 0.3),
    "clock": KindVoice(18, 12, 2, 6, 0.2),
    "robot": KindVoice(12, 9, 3, 10, 0.5, 8),
    "drum": KindVoice(1, 1.5, 10, 9, 0.25),
    "balloon": KindVoice(2, 4, 12, 30, 0.1),
    "penguin": KindVoice(24, 4, 4, 14, 0.6, -6),
}
AUDIBLE: tuple[str, ...] = tuple(VOICES)


@dataclass(frozen=True)
class SoundSource:
    """A sound source; `look` seeds its variation."""

    kind: str
    look: int


def render_sound(sources: Sequence[SoundSource], look: int) -> Image.Image:
    """The spectrogram as a gray image; `look` seeds its noise."""
    return render_with_sources(sources, look)[0]


def render_with_sources(sources: Sequence[SoundSource], look: int) -> tuple[Image.Image, NDArray[np.bool_]]:
    """The spectrogram, and the sources that sound in each patch: bool [patch, source]."""
    energies = [_energy(source) for source in sources]
    total = np.sum(energies, axis=0) if energies else np.zeros((SIDE, SIDE))
    rng = np.random.default_rng(look)
    loud = 1 - np.exp(-1.5 * total) + np.abs(rng.normal(0, rng.uniform(0.02, 0.08), (SIDE, SIDE)))
    image = Image.fromarray((255 * np.clip(loud, 0, 1)).astype(np.uint8))
    grid = SIDE // PATCH
    cells = [each.reshape(grid, PATCH, grid, PATCH).mean((1, 3)).ravel() for each in energies]
    return image, np.stack([cell >= _LEAST for cell in cells], -1) if cells else np.zeros((grid * grid, 0), bool)


def _energy(source: SoundSource) -> NDArray[np.float64]:
    """[bin, frame], the highest bin first."""
    voice, rng = VOICES[source.kind], np.random.default_rng(source.look)
    frames = np.arange(SIDE)
    begin, end = rng.uniform(0, 14), rng.uniform(34, SIDE)
    on = (frames >= begin) & (frames < end)
    if voice.period:
        period = voice.period * rng.uniform(0.9, 1.1)
        within = ((frames - begin) / period) % 1
        on &= within < max(voice.duty, 1 / period)  # a beat is at least one frame
        risen = within / voice.duty
    else:
        risen = (frames - begin) / (end - begin)
    base = voice.base + rng.uniform(-0.8, 0.8)
    bins = np.arange(SIDE)[:, None]
    energy = np.zeros((SIDE, SIDE))
    for partial in range(voice.partials):
        pitch = base + partial * voice.step + voice.glide * risen
        energy += 0.88**partial * np.exp(-0.5 * ((bins - pitch[None]) / _WIDTH) ** 2)
    return (rng.uniform(0.5, 1.0) * energy * on[None])[::-1]


_PURPOSE = 12  # number of this use of a scene's random streams
PICTURE, SOUND = "picture", "sound"


@dataclass(frozen=True)
class Soundscape:
    """A scene and its sources, with three sets of audible kinds: `shared`, `seen` only, `heard` only.

    Each set has at least one member.
    """

    scene: Scene
    sources: tuple[SoundSource, ...]
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
    """The soundscape of a scene, None if fewer than two of its kinds are audible."""
    scene, rng = sample_scene(world, split, index), scene_rng(world, split, index, _PURPOSE)
    visible = [kind for kind in AUDIBLE if kind in scene.kinds]
    if len(visible) < 2:
        return None
    sounding = rng.permutation(visible)[: int(rng.integers(1, min(len(visible), 3)))]
    elsewhere = rng.permutation([kind for kind in AUDIBLE if kind not in visible])[: int(rng.integers(1, 3))]
    sources = tuple(SoundSource(str(kind), int(rng.integers(2**31))) for kind in (*sounding, *elsewhere))
    return Soundscape(scene, sources, int(rng.integers(2**31)))


def soundscapes(world: WorldConfig, split: str, count: int) -> Iterator[Soundscape]:
    """The first `count` soundscapes of a split."""
    index, left = 0, count
    while left:
        soundscape = sample_soundscape(world, split, index)
        index += 1
        if soundscape is not None:
            left -= 1
            yield soundscape


def media_paths(folder: Path, soundscape: Soundscape) -> dict[str, str]:
    """Draw picture and sound into `folder` unless they exist; returns their relative paths by medium."""
    identity = [[source.kind, source.look] for source in soundscape.sources]
    relative = f"sounds/{soundscape.scene.id}-{hash_json([identity, soundscape.look])[:8]}.png"
    draw_once(folder / relative, lambda: render_sound(soundscape.sources, soundscape.look))
    return {PICTURE: image_path(folder, soundscape.scene), SOUND: relative}


def question_rng(world: WorldConfig, soundscape: Soundscape, purpose: int) -> np.random.Generator:
    """The random stream of the questions on a soundscape."""
    return scene_rng(world, soundscape.scene.split, soundscape.scene.index, 100 + purpose)
