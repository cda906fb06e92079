"""From encoded rows to the tensors of one forward pass: padding, positions, and each image through the tower once.

Padding is on either side and never changes a row's positions; what the tensors are used for is `scorer` and `sampler`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from sightline.models.encoding import Images, Row
from sightline.models.loading import VLM


@dataclass(frozen=True)
class Batch:
    """Rows side by side. `real` is False on padding; `positions` count the real tokens of a row from 0."""

    ids: Int[Tensor, "row token"]
    real: Bool[Tensor, "row token"]
    positions: Int[Tensor, "row token"]


def collate(vlm: VLM, rows: Sequence[Row], pad: Literal["left", "right"]) -> Batch:
    """Pad rows to the longest, on the left to go on from the last token, on the right to score."""
    width = max(len(row.ids) for row in rows)
    filler = vlm.tokenizer.pad_token_id
    ids = torch.full((len(rows), width), vlm.tokenizer.eos_token_id if filler is None else filler)
    real = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        span = slice(0, len(row.ids)) if pad == "right" else slice(width - len(row.ids), width)
        ids[index, span] = torch.tensor(row.ids)
        real[index, span] = True
    positions = (real.cumsum(1) - 1).clamp(min=0)
    return Batch(ids.to(vlm.device), real.to(vlm.device), positions.to(vlm.device))


def image_inputs(vlm: VLM, rows: Sequence[Row]) -> dict[str, Any]:
    """The keyword arguments that bring the rows' images into the model's forward; empty where there are none.

    Rows with the same images share one pass through vision tower and projector; gradients add up where they meet.
    """
    distinct: dict[tuple[Any, ...], Images] = {row.images.paths: row.images for row in rows if row.images.paths}
    if not distinct:
        return {}
    names = next(iter(distinct.values())).tensors.keys()
    tensors = {name: torch.cat([images.tensors[name] for images in distinct.values()]) for name in names}
    moved = {name: value.to(vlm.device) for name, value in tensors.items()}
    pixels = {name: value.to(vlm.dtype) if value.is_floating_point() else value for name, value in moved.items()}
    features = list(vlm.model.get_image_features(**pixels, return_dict=True).pooler_output)
    of_paths: dict[tuple[Any, ...], list[Tensor]] = {}
    for paths in distinct:
        of_paths[paths], features = features[: len(paths)], features[len(paths) :]
    in_order = [feature for row in rows for feature in of_paths.get(row.images.paths, [])]
    outputs = BaseModelOutputWithPooling(pooler_output=in_order)  # type: ignore[arg-type]  # a list, one an image
    return {"mm_encoder_outputs": {"image": outputs}}
