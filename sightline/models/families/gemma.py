"""PaliGemma and Gemma 3, in which some tokens of a prefix attend to each other both ways."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sightline.models.families.base import ModelFamily


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
