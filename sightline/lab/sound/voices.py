"""What each audible kind sounds like, and sources -> spectrogram: partials of a tone, in beats, with a glide.

Our own shapes and no recordings; a voice is never one bitmap: pitch, tempo, onset, loudness and noise vary with each
source's `look` seed. A spectrogram is a gray picture of 48 frames by 48 frequency bins, low ones at the bottom.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 48
PATCH = 12  # 4 x 4 tokens
_WIDTH = 0.7  # of a partial, in bins
_LEAST = 0.015  # mean energy by which a patch counts as sounding of a source


@dataclass(frozen=True)
class Voice:
    """A tone of `partials` from bin `base` on, `step` bins apart, each weaker than the one below.

    It sounds for the first `duty` of every `period` frames (0: without a pause), and rises by `glide` bins meanwhile.
    """

    base: float
    step: float
    partials: int
    period: float
    duty: float = 1.0
    glide: float = 0.0


VOICES: dict[str, Voice] = {
    "kettle": Voice(36, 5, 2, 0, glide=4),
    "pan": Voice(20, 2.5, 9, 3, 0.5),
    "car": Voice(6, 4, 4, 0, glide=3),
    "bus": Voice(3, 3, 5, 16, 0.8, -1),
    "bicycle": Voice(40, 3, 2, 5, 0.4),
    "cow": Voice(9, 5, 5, 24, 0.7, -4),
    "tractor": Voice(2, 2, 8, 4, 0.5),
    "pig": Voice(14, 6, 3, 8, 0.5, 3),
    "hen": Voice(27, 7, 2, 6, 0.35, 5),
    "boat": Voice(4, 8, 4, 0),
    "laptop": Voice(31, 0, 1, 12, 0.3),
    "clock": Voice(18, 12, 2, 6, 0.2),
    "robot": Voice(12, 9, 3, 10, 0.5, 8),
    "drum": Voice(1, 1.5, 10, 9, 0.25),
    "balloon": Voice(2, 4, 12, 30, 0.1),
    "penguin": Voice(24, 4, 4, 14, 0.6, -6),
}
AUDIBLE: tuple[str, ...] = tuple(VOICES)


@dataclass(frozen=True)
class Source:
    """Something that sounds; `look` seeds how."""

    kind: str
    look: int


def render_sound(sources: Sequence[Source], look: int) -> Image.Image:
    """The spectrogram as a gray image; `look` seeds its noise."""
    return render_with_sources(sources, look)[0]


def render_with_sources(sources: Sequence[Source], look: int) -> tuple[Image.Image, NDArray[np.bool_]]:
    """The spectrogram, and which sources sound in each patch: bool [patch, source]."""
    energies = [_energy(source) for source in sources]
    total = np.sum(energies, axis=0) if energies else np.zeros((SIDE, SIDE))
    rng = np.random.default_rng(look)
    loud = 1 - np.exp(-1.5 * total) + np.abs(rng.normal(0, rng.uniform(0.02, 0.08), (SIDE, SIDE)))
    image = Image.fromarray((255 * np.clip(loud, 0, 1)).astype(np.uint8))
    grid = SIDE // PATCH
    cells = [each.reshape(grid, PATCH, grid, PATCH).mean((1, 3)).ravel() for each in energies]
    return image, np.stack([cell >= _LEAST for cell in cells], -1) if cells else np.zeros((grid * grid, 0), bool)


def _energy(source: Source) -> NDArray[np.float64]:
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
    made = np.zeros((SIDE, SIDE))
    for partial in range(voice.partials):
        pitch = base + partial * voice.step + voice.glide * risen
        made += 0.88**partial * np.exp(-0.5 * ((bins - pitch[None]) / _WIDTH) ** 2)
    return (rng.uniform(0.5, 1.0) * made * on[None])[::-1]
