"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: rotary positions with three axes; Qwen3 adds features to its first layers."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sightline.models.families.base import Features, ModelFamily, _joined


class Qwen(ModelFamily):
    """Positions in time, height and width; text continues from the largest of the three (2409.12191, sec. 2.1)."""

    projector = "merger"  # inside the vision model
    axes = 3

    def positions(
        self, base: Any, ids: Int[Tensor, "token"], is_image: Bool[Tensor, "token"], images: Mapping[str, Tensor]
    ) -> Int[Tensor, "axis token"]:
        grids = images.get("image_grid_thw")
        if grids is None:
            return torch.arange(len(ids)).expand(3, -1)
        found: Tensor = base.model.get_rope_index(ids[None], is_image[None].int(), image_grid_thw=grids)[0]
        return found[:, 0]

    def decoder_positions(self, positions: Int[Tensor, "axis row token"]) -> Int[Tensor, "..."]:
        return positions


class Qwen3(Qwen):
    """DeepStack (2406.04334): the last features are the input, those of lower depths are added after first layers."""

    def features(self, base: Any, images: Mapping[str, Tensor]) -> Features:
        output = self.encode_images(base, images)
        deep = {f"layer{number}": _joined(each) for number, each in enumerate(output.deepstack_features)}
        return {"tokens": _joined(output.pooler_output), **deep}

    def decoder_inputs(self, is_image: Bool[Tensor, "token"], features: Features | None) -> dict[str, Any]:
        if features is None:
            return {}
        deep = [features[f"layer{number}"] for number in range(len(features) - 1)]
        return {"visual_pos_masks": is_image[None], "deepstack_visual_embeds": deep}


class Qwen4(Qwen):
    """Qwen4 with gated delta nets and indexers; not with embeddings of n-grams, which need ids beside embeddings."""

    def supports(self, config: Any) -> bool:
        return not config.get_text_config().ple_layer_ids


class PaliGemma(ModelFamily):
    """PaliGemma: the whole prefix, images and prompt, is one block (2407.07726, sec. 3.1); positions start at 1."""

    answer_type = 1
    blocks_over_window = True
    processor_adds_lead = True

    def positions(
        self, base: Any, ids: Int[Tensor, "token"], is_image: Bool[Tensor, "token"], images: Mapping[str, Tensor]
    ) -> Int[Tensor, "axis token"]:
        return torch.arange(1, len(ids) + 1)[None]

    def blocks(self, ids: Int[Tensor, "token"], is_image: Bool[Tensor, "token"]) -> Int[Tensor, "token"]:
        return torch.zeros_like(ids)


class Gemma3(ModelFamily):
    """Gemma 3: the tokens of an image are a block (2503.19786); adjacent images form one, as in Transformers."""

    def blocks(self, ids: Int[Tensor, "token"], is_image: Bool[Tensor, "token"]) -> Int[Tensor, "token"]:
        before = torch.nn.functional.pad(is_image, (1, 0))[:-1]
        numbers = (is_image & ~before).cumsum(0) - 1
        return numbers.masked_fill(~is_image, -1)
