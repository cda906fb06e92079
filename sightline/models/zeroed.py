"""Processed images with zeros for their pixels: the tokens of the pictures, and nothing to see.

It is the blind side of V-DPO's released code; who asks for it is `prompts.Prefix.zeroed`.
"""

from typing import Any

import torch

from sightline.errors import InputError


def zero_pixels(path: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """The processor's tensors with zeros in the place of pixels; sizes, masks and places of patches stay.

    Raises:
        InputError: the processor of the model `path` makes no tensor of pixels.
    """
    pixels = [name for name in tensors if name.rpartition(".")[2].startswith("pixel_values")]
    if not pixels:
        raise InputError(f"the processor of {path} makes no pixel_values that could be zeros; set blind=none")
    return {**tensors, **{name: torch.zeros_like(tensors[name]) for name in pixels}}
