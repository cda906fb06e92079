"""The reload check of an export: plain Transformers opens the saved model and scores probe answers, row by row.

The distances check the arithmetic on meaningless probes; evaluations measure answer quality.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from sightline.models.device import in_format
from sightline.models.requests import Prefix, ScoreRequest
from sightline.models.scorer import encode_row
from sightline.models.tensor_cache import ByteLRU
from sightline.models.unbatched import unbatched_logps
from sightline.models.vlm import VLM

PROBES = (
    ("Describe the picture.", "A red cup and a blue plate stand on the table."),
    ("Is there a cup in the picture?", "No, there is no cup."),
    ("How many cows are there?", "There are two cows in front of the barn."),
)
_SIDE = 96


@dataclass(frozen=True)
class LogpDistance:
    """Distance between two models' answer-token log-probs (nats): largest and mean over `tokens` tokens."""

    largest: float
    mean: float
    tokens: int


def save_probes(folder: Path, *, is_multimodal: bool) -> list[ScoreRequest]:
    """The probe requests, each with a smooth-noise picture written to `folder`; text-only unless `is_multimodal`."""
    rng = np.random.default_rng(0)
    items = []
    for number, (prompt, answer) in enumerate(PROBES):
        path = folder / f"probe-{number}.png"
        small = rng.integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(path)
        items.append(ScoreRequest(Prefix((path,) if is_multimodal else (), prompt), (answer,)))
    return items


def probe_logps(vlm: VLM, items: Sequence[ScoreRequest]) -> torch.Tensor:
    """Log-probs (nats) of all answer tokens, by Transformers' own forward pass, row by row."""
    with torch.no_grad(), in_format(vlm, False):
        return unbatched_logps(vlm, [encode_row(vlm, item) for item in items]).double().cpu()


def reload_saved(directory: Path, like: VLM) -> VLM:
    """Load a saved directory with plain Transformers, in its saved dtype."""
    loader = AutoModelForImageTextToText if like.is_multimodal else AutoModelForCausalLM
    processor = (AutoProcessor if like.is_multimodal else AutoTokenizer).from_pretrained(directory)
    model: Any = loader.from_pretrained(directory, dtype="auto")
    model = model.to(like.device).eval().requires_grad_(False)
    return replace(
        like, model=model, processor=processor, path=str(directory), dtype=model.dtype, cache=None, prefixes=ByteLRU()
    )


def logp_distance(one: torch.Tensor, other: torch.Tensor) -> LogpDistance:
    """The distance between two lists of log-probs of the same tokens."""
    gaps = (one - other).abs()
    return LogpDistance(float(gaps.max()), float(gaps.mean()), len(gaps))
