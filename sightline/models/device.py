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
from sightline.records.store import read_json


def resolve_device(device: str) -> str:
    """Resolve "auto" to a GPU if there is one, else to the CPU; return other values unchanged.

    Raises:
        InputError: `device` is no device of torch, or this machine has none of its kind or number.
    """
    has_gpu = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if has_gpu else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is unknown; use auto, cpu, cuda, cuda:1, mps or xpu") from error
    if place.type == "cuda" and not has_gpu:
        raise InputError(f"device is {device}, but torch finds no GPU; use cpu or auto")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device is {device}, but this machine has {torch.cuda.device_count()} GPUs; use a lower number"
        )
    if place.type not in ("cpu", "cuda") and not (torch.accelerator.is_available() and _accelerates(place.type)):
        raise InputError(f"device is {device}, but torch finds none on this machine; use cpu or auto")
    return device


def _accelerates(kind: str) -> bool:
    current = torch.accelerator.current_accelerator()
    return current is not None and current.type == kind


def resolve_dtype(dtype: str, device: str, place: Path) -> str:
    """Resolve "auto" to float32 on a CPU and to the checkpoint's format elsewhere; return other values unchanged.

    `place` is the directory of the model. A checkpoint that does not state its format counts as float32.
    """
    if dtype != "auto":
        return dtype
    path = place / "config.json"
    if device == "cpu" or not path.is_file():
        return "float32"
    config = read_json(path)
    sections = (config, config.get("text_config") or {})
    stated = (str(section.get(key) or "") for section in sections for key in ("dtype", "torch_dtype"))
    return next((name for name in (each.removeprefix("torch.") for each in stated) if name in FORMATS), "float32")


#: Number formats of weights.
FORMATS = ("float32", "bfloat16", "float16")
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
    record_computed(_record(vlm.device, vlm.dtype, halved, vlm.opened))
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
def _record(device: torch.device, dtype: torch.dtype, autocast: bool, opened: tuple[tuple[str, Any], ...]) -> Computed:
    return Computed(
        device=device.type,
        device_name=device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        autocast=autocast,
        opened=dict(opened),
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
