"""The device and the dtype of forward passes: resolution of `auto`, support of bfloat16, and a record for manifests.

It moves no models; `loading` does.
"""

import logging
import platform
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sightline.errors import InputError
from sightline.models.vlm import VLM
from sightline.records.manifest import Computed, record_computed


def resolve_device(device: str) -> str:
    """Resolve "auto" to a GPU if there is one, else to the CPU; return other values unchanged.

    Raises:
        InputError: `device` is a GPU and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if has_gpu else "cpu"
    if device.startswith("cuda") and not has_gpu:
        raise InputError(f"device is {device}, but torch finds no GPU; use cpu or auto")
    return device


#: torch's names of CPU capabilities with slow bfloat16; AVX-512 and SVE have instructions for it.
SLOW = frozenset({"DEFAULT", "NO AVX", "AVX2"})
#: The file in which Linux names the processor.
CPU_INFO = Path("/proc/cpuinfo")
log = logging.getLogger(__name__)


def uses_bfloat16(vlm: VLM, autocast: bool) -> bool:
    """Whether to autocast to bfloat16; float32 weights on a CPU with slow bfloat16 stay float32, with a warning."""
    if not autocast or vlm.dtype != torch.float32 or computes_bfloat16(vlm.device.type):
        return autocast
    _warn_once(torch.backends.cpu.get_cpu_capability())
    return False


def computes_bfloat16(device: str) -> bool:
    """Whether bfloat16 is at least as fast as float32 on a device of this type."""
    return device != "cpu" or torch.backends.cpu.get_cpu_capability() not in SLOW


def in_format(vlm: VLM, autocast: bool) -> AbstractContextManager[object]:
    """The autocast context of a forward pass; device and dtype are recorded in the manifests of open stages."""
    halved = uses_bfloat16(vlm, autocast)
    record_computed(_record(vlm.device, vlm.dtype, halved))
    if not halved and not torch.amp.is_autocast_available(vlm.device.type):
        return nullcontext()
    return torch.autocast(vlm.device.type, torch.bfloat16, enabled=halved)


def device_name(device: torch.device) -> str:
    """The product name of the GPU or the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_name() if device.type == "cpu" else device.type


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to `device` without waiting for the work that is queued there.

    A copy from ordinary memory to a GPU waits for all kernels before it; one from page-locked memory does not.
    """
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def read_values(tensor: Tensor) -> Any:
    """The values of a tensor as Python numbers. On a GPU the host waits here, and nowhere else, for the device."""
    return tensor.tolist()


@cache
def _record(device: torch.device, dtype: torch.dtype, autocast: bool) -> Computed:
    return Computed(
        device=device.type,
        device_name=device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        autocast=autocast,
    )


def _cpu_name() -> str:
    """The CPU's model name as reported by Linux, or by Python elsewhere."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (value for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name")
    return " ".join(next(names, "").split()) or platform.processor() or platform.machine() or "unknown"


@cache
def _warn_once(units: str) -> None:
    log.warning("autocast is off: this CPU (%s) is faster in float32 than in bfloat16", units)
