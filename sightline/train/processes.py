"""Several processes that train one model: who does what share, how they add up, and how they stop together.

They are started by `accelerate launch` or `torchrun`, which this reads from the environment; nothing is started here.
One process is the plain case: every method is then what a loop without processes would do. Sharded weights are
`sharding`'s.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from sightline.errors import InputError
from sightline.models.vlm import VLM

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `count`; the first one writes all files and shows the bars."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether files are this process's to write."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of what all hold: every `count`-th item, so that all have as many, up to one."""
        return list(items[self.rank :: self.count])

    def join(self, share: Sequence[T]) -> list[T]:
        """All items in their order, from what each process made of its share; called by all."""
        parts = self.tell(list(share))
        made: list[T] = []
        for place in range(max(len(part) for part in parts)):
            made += [part[place] for part in parts if place < len(part)]
        return made

    def tell(self, value: T) -> list[T]:
        """What each process says, by rank; called by all."""
        if self.count == 1:
            return [value]
        told: list[Any] = [None] * self.count
        distributed.all_gather_object(told, value)
        return told

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, for all; called by all. An `InputError` of it ends all of them."""
        return self.together(lambda: work() if self.is_first else None, of_first=True)  # type: ignore[return-value]

    def together(self, work: Callable[[], T], *, of_first: bool = False) -> T:
        """`work()` in each process; where it raises `InputError` in one, all end.

        The first process raises, for whoever shows errors to people; the others exit with the code of bad input.
        With `of_first` all get what the first process made.
        """
        if self.count == 1:
            return work()
        made: T | None = None
        error: InputError | None = None
        try:
            made = work()
        except InputError as caught:
            error = caught
        errors = [each for each in self.tell(error) if each is not None]
        if errors:
            if self.is_first:
                raise errors[0]
            raise SystemExit(2)
        return self.tell(made)[0] if of_first else made  # type: ignore[return-value]

    def add_up(self, weights: Sequence[Tensor]) -> None:
        """Sum the gradients of `weights` over all processes, in place; a weight that none has a gradient of keeps none.

        One message a number format: many small ones would each wait for the slowest process.
        """
        if self.count == 1:
            return
        there = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.int32, device=_place(weights))
        distributed.all_reduce(there)
        used = [weight for weight, count in zip(weights, there.tolist(), strict=True) if count]
        for kind in sorted({weight.dtype for weight in used}, key=str):
            of_kind = [weight for weight in used if weight.dtype == kind]
            flat = torch.cat([_gradient(weight).flatten() for weight in of_kind])
            distributed.all_reduce(flat)
            for weight, part in zip(of_kind, flat.split([weight.numel() for weight in of_kind]), strict=True):
                weight.grad = part.view_as(weight).clone()


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """The processes that a launcher started, on "cpu" or "cuda"; one where none did, or where they are joined already.

    On a GPU each process takes the one of its local rank, which is "cuda" to it from then on.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def present_processes() -> Processes:
    """The processes that are joined now, for those whom nobody tells."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Processes()
    return Processes(distributed.get_rank(), distributed.get_world_size())


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _place(weights: Sequence[Tensor]) -> torch.device:
    return weights[0].device if weights else torch.device("cpu")


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
