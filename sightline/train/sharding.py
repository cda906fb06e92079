"""Weights, gradients and optimizer state cut over the processes by FSDP2 (`torch.distributed.fsdp.fully_shard`).

The engine calls vision tower, language model and head one by one, and FSDP2 wants all calls within the forward of one
root. So the root is a module of ours whose forward runs whatever it is given: layers are gathered one by one as they
run, the rest (embeddings, head, vision, projector) once a pass. Copies instead of shards are `processes`'s.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from sightline.errors import InputError
from sightline.models.vlm import VLM


class Within(Protocol):
    """Runs a computation on the model where its weights can be had; the plain case is to call it."""

    def __call__(self, work: Callable[[], Tensor | None]) -> Tensor | None: ...


def plainly(work: Callable[[], Tensor | None]) -> Tensor | None:
    """For weights that are whole."""
    return work()


class Root(nn.Module):
    """The model within a forward that runs what it is given.

    What `work` returns must be the loss that is differentiated, or None where nothing is: FSDP2 hangs its hooks there.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], Tensor | None]) -> Tensor | None:
        return work()


def sharding_asked(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher's config asks for FSDP.

    Raises:
        InputError: it asks for what this engine has no proof of: FSDP's first version, or DeepSpeed.
    """
    if _is_on(environ, "ACCELERATE_USE_DEEPSPEED"):
        raise InputError(
            "training does not run under DeepSpeed; launch with fsdp2.yaml, which cuts weights, gradients and optimizer"
            " as ZeRO-3 does, or fsdp2-zero2.yaml"
        )
    asked = _is_on(environ, "ACCELERATE_USE_FSDP")
    if asked and environ.get("FSDP_VERSION") != "2":
        raise InputError("training shards with FSDP2 alone; set fsdp_version: 2 in the launcher's config")
    return asked


def sharding_options(environ: Mapping[str, str] = os.environ) -> dict[str, bool]:
    """What the launcher's config says of how to shard, as `shard` takes it; what it says beyond has no use here."""
    return {
        "reshard_after_forward": _is_on(environ, "FSDP_RESHARD_AFTER_FORWARD", "true"),
        "offload": _is_on(environ, "FSDP_OFFLOAD_PARAMS"),
    }


def _is_on(environ: Mapping[str, str], name: str, default: str = "") -> bool:
    return environ.get(name, default).lower() in ("1", "true", "yes", "y")


def shard(vlm: VLM, *, reshard_after_forward: bool = True, offload: bool = False) -> Root:
    """Cut all weights of the model over the processes, in place; each layer of the language model is a unit.

    The weights are whole at call and the same everywhere. Gradients are summed and not averaged, since a step's loss is
    a mean over the items of all processes. With `offload` shards wait in the CPU's memory.
    """
    root = Root(vlm.model)
    options: dict[str, Any] = {
        "reshard_after_forward": reshard_after_forward,
        "offload_policy": CPUOffloadPolicy() if offload else OffloadPolicy(),
    }
    if not distributed.is_initialized():
        raise ValueError("weights are sharded over processes; start several")
    mesh = init_device_mesh(vlm.device.type, (distributed.get_world_size(),))
    for layer in _layers(vlm):
        fully_shard(layer, mesh=mesh, **options)
    fully_shard(root, mesh=mesh, offload_policy=options["offload_policy"])
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            # A process whose rows have no picture has no gradient of the vision part, and must take part all the same.
            module.set_reduce_scatter_unused_params(True)
    return root


def is_sharded(tensor: Tensor) -> bool:
    """Whether each process has a part of it only."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, put together where it is sharded; called by all processes."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, place: Tensor) -> Tensor:
    """A whole tensor cut as `place` is, where that is sharded; the same everywhere."""
    if not isinstance(place, DTensor):
        return tensor
    return distribute_tensor(tensor.to(place.device), place.device_mesh, place.placements)


def whole_state(model: nn.Module, *, trained_only: bool = False) -> dict[str, Tensor]:
    """The model's state by name, put together on the CPU; called by all processes. Tied weights stay one tensor."""
    made: dict[int, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if trained_only and not tensor.requires_grad:
            continue
        if id(tensor) not in made:
            made[id(tensor)] = whole(tensor.detach()).cpu()
        state[name] = made[id(tensor)]
    return state


def _layers(vlm: VLM) -> Iterable[nn.Module]:
    """The language model's layers: the longest list of modules within it."""
    lists = [module for module in vlm.base.get_decoder().modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda layers: len(layers), default=())
