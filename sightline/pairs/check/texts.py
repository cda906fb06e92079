"""Texts as numbers: two 64-bit sketches for likeness; equality is asked of `sightline.data.texts`.

A sketch is b-bit MinHash with one bit of each of 64 permutations (Li & Konig 2010): two texts whose sets of
five-character shingles have Jaccard similarity J differ in about 32 (1 - J) bits. `near` finds those that are close
in the first; the second, of other permutations, confirms it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SHINGLE = 5  # characters
_MOST = 20_000  # characters of a text that are sketched
_rng = np.random.default_rng(0)
_FACTORS = (_rng.integers(0, 2**31, size=128, dtype=np.uint32) * np.uint32(2) + np.uint32(1))[:, None]
_TERMS = _rng.integers(0, 2**32, size=128, dtype=np.uint32)[:, None]
_POWERS = np.array([1_000_003**power % 2**32 for power in range(_SHINGLE)], dtype=np.uint32)
_MIXER = np.uint32(0x9E3779B1)  # the golden ratio, as Knuth multiplies hashes


def sketch(parts: Sequence[str]) -> tuple[int, int]:
    """Twice 64 bits that are close for texts that are alike; the same shingle in another part is another one."""
    hashed = [_shingles(part, number) for number, part in enumerate(parts)]
    shingles = np.concatenate(hashed) if hashed else np.zeros(0, np.uint32)
    if not len(shingles):
        return 0, 0
    least = (_FACTORS * shingles + _TERMS).min(axis=1)
    bits = (least * _MIXER) >> np.uint32(31)
    first, second = np.packbits(bits.astype(np.uint8)).view(np.uint64)
    return int(first), int(second)


def _shingles(text: str, part: int) -> NDArray[np.uint32]:
    """A hash of every run of five characters; of the whole, filled up, where there are fewer."""
    raw = text[:_MOST].ljust(_SHINGLE).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(raw, dtype=np.uint32)
    hashed = np.zeros(len(codes) - _SHINGLE + 1, dtype=np.uint32)
    for offset, power in enumerate(_POWERS):
        hashed += codes[offset : len(hashed) + offset] * power
    hashed = (hashed ^ np.uint32(part * 0x5BD1E995 & 0xFFFFFFFF)) * _MIXER
    mixed: NDArray[np.uint32] = hashed ^ (hashed >> np.uint32(15))
    return mixed
