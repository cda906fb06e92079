"""Processes that train one model: summing gradients, FSDP2 sharding. `models.processes` joins them."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from sightline.errors import InputError
from sightline.models.processes import Processes
from sightline.models.vlm import VLM


def sum_gradients(processes: Processes, weights: Sequence[Tensor]) -> None:
    """Sum the gradients of `weights` over all processes in place; a weight without any gradient keeps none.

    Sends one message per number format: many small ones would each wait for the slowest process.
    """
    if processes.count == 1:
        return
    there = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32, device=_device_of(weights))
    distributed.all_reduce(there)
    used = [weight for weight, count in zip(weights, there.tolist(), strict=True) if count]
    for kind in sorted({weight.dtype for weight in used}, key=str):
        of_kind = [weight for weight in used if weight.dtype == kind]
        flat = torch.cat([_gradient(weight).flatten() for weight in of_kind])
        distributed.all_reduce(flat)
        for weight, part in zip(of_kind, flat.split([weight.numel() for weight in of_kind]), strict=True):
            weight.grad = part.view_as(weight).clone()


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _device_of(weights: Sequence[Tensor]) -> torch.device:
    return weights[0].device if weights else torch.device("cpu")


class RunWithWeights(Protocol):
    """Runs a computation on the model while its weights are available; unsharded, it just calls it."""

    def __call__(self, work: Callable[[], Tensor | None]) -> Tensor | None: ...


def run_directly(work: Callable[[], Tensor | None]) -> Tensor | None:
    """Call `work`: for weights that are not sharded."""
    return work()


class ShardedRoot(nn.Module):
    """The model wrapped in a module whose forward runs a given function.

    `work` must return the loss that is differentiated, or None if there is none: FSDP2 attaches its hooks to it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Tensor | None]) -> Tensor | None:
        return work()


def is_sharding_requested(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher's config requests FSDP.

    Raises:
        InputError: it requests FSDP version 1 or DeepSpeed, which are not verified here.
    """
    if _is_set(environ, "ACCELERATE_USE_DEEPSPEED"):
        raise InputError(
            "training does not run under DeepSpeed; launch with fsdp2.yaml, which shards weights, gradients and "
            "optimizer like ZeRO-3, or with fsdp2-zero2.yaml"
        )
    is_requested = _is_set(environ, "ACCELERATE_USE_FSDP")
    if is_requested and environ.get("FSDP_VERSION") != "2":
        raise InputError("training supports FSDP2 only; set fsdp_version: 2 in the launcher's config")
    return is_requested


def sharding_options(environ: Mapping[str, str] = os.environ) -> dict[str, bool]:
    """The launcher's sharding options, as arguments of `shard`; other options are ignored."""
    return {
        "reshard_after_forward": _is_set(environ, "FSDP_RESHARD_AFTER_FORWARD", "true"),
        "offload": _is_set(environ, "FSDP_OFFLOAD_PARAMS"),
    }


def _is_set(environ: Mapping[str, str], name: str, default: str = "") -> bool:
    return environ.get(name, default).lower() in ("1", "true", "yes", "y")


def shard(vlm: VLM, *, reshard_after_forward: bool = True, offload: bool = False) -> ShardedRoot:
    """Shard all weights of the model over the processes, in place; each layer of the language model is a unit.

    The weights must be complete and identical on all processes. Gradients are summed, not averaged, because a step's
    loss is a mean over the items of all processes. With `offload` the shards stay in CPU memory.
    """
    root = ShardedRoot(vlm.model)
    options: dict[str, Any] = {
        "reshard_after_forward": reshard_after_forward,
        "offload_policy": CPUOffloadPolicy() if offload else OffloadPolicy(),
    }
    if not distributed.is_initialized():
        raise ValueError("sharding needs several processes; start them with a launcher")
    mesh = init_device_mesh(vlm.device.type, (distributed.get_world_size(),))
    for layer in _layers(vlm):
        fully_shard(layer, mesh=mesh, **options)
    fully_shard(root, mesh=mesh, offload_policy=options["offload_policy"])
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            # A process whose rows have no image has no gradient of the vision tower, and must take part nevertheless.
            module.set_reduce_scatter_unused_params(True)
    return root


def is_sharded(tensor: Tensor) -> bool:
    """Whether each process holds only a part of the tensor."""
    return isinstance(tensor, DTensor)


def unsharded(tensor: Tensor) -> Tensor:
    """The tensor itself, gathered if it is sharded; collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, place: Tensor) -> Tensor:
    """A full tensor sharded as `place` is, if that is sharded."""
    if not isinstance(place, DTensor):
        return tensor
    return distribute_tensor(tensor.to(place.device), place.device_mesh, place.placements)


def full_state(model: nn.Module, *, trained_only: bool = False) -> dict[str, Tensor]:
    """The model's state by name, gathered on the CPU; collective. Tied weights stay one tensor."""
    tensors: dict[int, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if trained_only and not tensor.requires_grad:
            continue
        if id(tensor) not in tensors:
            tensors[id(tensor)] = unsharded(tensor.detach()).cpu()
        state[name] = tensors[id(tensor)]
    return state


def _layers(vlm: VLM) -> Iterable[nn.Module]:
    """The language model's layers: its longest list of modules."""
    lists = [module for module in vlm.base.get_decoder().modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda layers: len(layers), default=())
