"""Which device a model computes on: the word of a config or an option, made true for this machine.

It moves nothing; `loading` puts models where it says.
"""

import logging
import platform
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import torch

from sightline.errors import InputError
from sightline.models.vlm import VLM
from sightline.records.manifest import Computed, record_computed


def resolve_device(device: str) -> str:
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


#: What torch calls the vector units of CPUs on which bfloat16 is slow; AVX-512 and SVE have instructions for it.
SLOW = frozenset({"DEFAULT", "NO AVX", "AVX2"})
#: Where Linux names the processor.
CPU_INFO = Path("/proc/cpuinfo")
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
    """The context of a forward pass; what it is computed in goes into the manifests of open stages."""
    halved = uses_bfloat16(vlm, autocast)
    record_computed(_record(vlm.device, vlm.dtype, halved))
    return torch.autocast(vlm.device.type, torch.bfloat16, enabled=halved)


def device_name(device: torch.device) -> str:
    """What the card, or the CPU, calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_name() if device.type == "cpu" else device.type


@cache
def _record(device: torch.device, dtype: torch.dtype, autocast: bool) -> Computed:
    return Computed(
        device=device.type,
        device_name=device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        autocast=autocast,
    )


def _cpu_name() -> str:
    """The model's name as Linux has it; elsewhere what Python knows."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (value for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name")
    return " ".join(next(names, "").split()) or platform.processor() or platform.machine() or "unknown"


@cache
def _say_once(units: str) -> None:
    log.warning("autocast is off: this CPU (%s) is faster in float32 than in bfloat16", units)
