"""The number format of a forward pass: bfloat16 where it is asked for and the machine computes in it, else float32.

A CPU without the units takes some eight times as long for a product in bfloat16 as for one in float32, and gains no
digit by it. It decides nothing about the format of weights: that is `loading`.
"""

import logging
from contextlib import AbstractContextManager
from functools import cache

import torch

from sightline.models.vlm import VLM

#: What torch calls the vector units of CPUs on which bfloat16 is slow; AVX-512 and SVE have instructions for it.
SLOW = frozenset({"DEFAULT", "NO AVX", "AVX2"})
log = logging.getLogger(__name__)


def uses_bfloat16(vlm: VLM, autocast: bool) -> bool:
    """Whether `autocast` has an effect; float32 weights on a CPU without the units stay float32, and a line says so."""
    if not autocast or vlm.dtype != torch.float32 or computes_bfloat16(vlm.device.type):
        return autocast
    _say_once(torch.backends.cpu.get_cpu_capability())
    return False


def computes_bfloat16(device: str) -> bool:
    """Whether a product in bfloat16 is no slower than one in float32 on a device of this type."""
    return device != "cpu" or torch.backends.cpu.get_cpu_capability() not in SLOW


def in_format(vlm: VLM, autocast: bool) -> AbstractContextManager[object]:
    """The context of a forward pass."""
    return torch.autocast(vlm.device.type, torch.bfloat16, enabled=uses_bfloat16(vlm, autocast))


@cache
def _say_once(units: str) -> None:
    log.warning("autocast is off: this CPU (%s) is faster in float32 than in bfloat16", units)
