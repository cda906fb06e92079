"""Fingerprints of training data: digests that recognize a picture or question without storing it.

Training writes one beside its adapter, so that an evaluation can warn of leaks after the pairs are gone. Near
duplicates of pictures are not found here; `sightline check --against` finds them.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.data.images import coco_id
from sightline.data.texts import digest, normalize
from sightline.errors import InputError
from sightline.records.hashing import hash_file
from sightline.records.rows import IMAGE
from sightline.records.store import atomic_write

#: File name, beside the adapter in a training directory.
FINGERPRINT = "trained_on.npz"


@dataclass(frozen=True)
class Fingerprint:
    """Digests of pictures (of their bytes) and of normalized questions, and the COCO ids in picture names."""

    pictures: frozenset[int]
    coco: frozenset[int]
    questions: frozenset[int]

    def has_picture(self, path: Path) -> bool:
        """Whether its COCO id, or its bytes if the file exists, occur."""
        return coco_id(path.name) in self.coco or (path.is_file() and picture_digest(path) in self.pictures)


def compute_fingerprint(rows: Iterable[tuple[Iterable[Path], str]]) -> Fingerprint:
    """Compute the fingerprint of (pictures, question) rows; a missing picture counts by its name only."""
    pictures: set[Path] = set()
    questions: set[int] = set()
    for paths, text in rows:
        pictures.update(paths)
        questions.add(question_digest(text))
    return Fingerprint(
        pictures=frozenset(picture_digest(path) for path in pictures if path.is_file()),
        coco=frozenset(coco_id(path.name) for path in pictures) - {0},
        questions=frozenset(questions),
    )


def write_fingerprint(path: Path, digests: Fingerprint) -> None:
    """Write a fingerprint, eight bytes per entry."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        parts = {"pictures": digests.pictures, "coco": digests.coco, "questions": digests.questions}
        arrays = {name: np.array(sorted(part), np.uint64) for name, part in parts.items()}
        np.savez(file, allow_pickle=False, **arrays)


def read_fingerprint(path: Path) -> Fingerprint:
    """The fingerprint in a file; InputError if the file is not one."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return Fingerprint(*(frozenset(kept[name].tolist()) for name in ("pictures", "coco", "questions")))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a fingerprint of training data ({error}); delete it or train again") from error


def picture_digest(source: Path | bytes) -> int:
    """64 bits of the SHA-256 of a picture's bytes."""
    found = hashlib.sha256(source).digest() if isinstance(source, bytes) else bytes.fromhex(hash_file(source))
    return int.from_bytes(found[:8], "little")


def question_digest(text: str) -> int:
    """64 bits of a normalized question without `<image>`."""
    return digest(normalize(text.replace(IMAGE, " ")))
