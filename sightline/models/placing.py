"""Which device a model computes on: the word of a config or an option, made true for this machine.

It moves nothing; `loading` puts models where it says.
"""

import torch

from sightline.errors import InputError


def place_of(device: str) -> str:
    """The device of "auto" (a GPU where there is one), or `device` itself.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if has_gpu else "cpu"
    if device.startswith("cuda") and not has_gpu:
        raise InputError(f"device {device} is asked for, and torch finds no GPU here; use cpu or auto")
    return device
