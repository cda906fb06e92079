"""The image-use probe: a test of whether a model's log-probs depend on its images.

A wrong template or processor may drop the images silently, and training then teaches the model to guess. Therefore
training runs this probe first.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from sightline.data.images import open_image
from sightline.errors import InputError
from sightline.models.requests import ScoreRequest
from sightline.models.scorer import answer_logps
from sightline.models.vlm import VLM

#: Nats per answer; smaller changes are rounding.
LEAST = 1e-3


@dataclass(frozen=True)
class ImageUse:
    """The absolute change of answers' log-probs (nats) with gray images: its mean over answers and its maximum."""

    answers: int
    mean: float
    most: float

    @property
    def used(self) -> bool:
        """Whether any answer's log-prob changes by more than rounding."""
        return self.most > LEAST


def image_use(vlm: VLM, items: Sequence[ScoreRequest], *, autocast: bool = False) -> ImageUse | None:
    """Score the answers of `items` with their images and with gray ones of the same size; None without images."""
    shown = [item for item in items if item.prefix.images]
    if not shown:
        return None
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        moved = []
        for number, item in enumerate(shown):
            gray = replace(item, prefix=replace(item.prefix, images=_gray(item, Path(folder), number)))
            both = [answer_logps(vlm, [one], autocast=autocast).sums()[0] for one in (item, gray)]
            moved += (both[0] - both[1]).abs().tolist()
    return ImageUse(len(moved), sum(moved) / len(moved), max(moved))


def require_image_use(vlm: VLM, items: Sequence[ScoreRequest], *, autocast: bool = False) -> None:
    """Raise InputError if no answer's log-prob depends on its images."""
    found = image_use(vlm, items, autocast=autocast)
    if found is not None and not found.used:
        raise InputError(
            f"{vlm.path} ignores its images: gray images change the log-probs of {found.answers} answers by at most "
            f"{found.most:.1e} nats; check its processor and its chat template"
        )


def _gray(item: ScoreRequest, folder: Path, number: int) -> tuple[Path, ...]:
    paths = []
    for place, image in enumerate(item.prefix.images):
        path = folder / f"{number}-{place}.png"
        Image.new("RGB", open_image(image, f"image {image}").size, (128, 128, 128)).save(path)
        paths.append(path)
    return tuple(paths)
