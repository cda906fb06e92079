"""FSDP2: a model whose weights are opened once and sharded while they are handed out, and references scored with it.

Every process builds the model without weights, and shards that. The first one opens the checkpoint in CPU memory and
sends each process its part of one tensor after the other, so no other process ever holds the whole model, and no GPU.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, distributed
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from sightline.models.processes import Processes
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.train.processes import RunWithWeights, ShardedRoot, shard, sharding_options
from sightline.train.reference_cache import Reference


def open_sharded(open_policy: Callable[[str | None, bool], VLM], processes: Processes) -> tuple[VLM, ShardedRoot]:
    """The policy with its weights sharded over all processes; collective.

    `open_policy(device, weights)` opens it on a device (None: the run's), with weights or on the meta device, always
    with the same trainable weights.
    """
    vlm = open_policy(None, False)
    options = sharding_options()
    root = shard(vlm, **options)
    device = torch.device("cpu") if options["offload"] else vlm.device
    whole = open_policy("cpu", True) if processes.is_first else None
    tensors = {} if whole is None else {**_parameters(whole), **dict(whole.model.named_buffers())}
    fill(root, vlm, tensors, device)
    return vlm, root


def fill(root: ShardedRoot, vlm: VLM, tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Give a sharded model without weights those of the first process, in place; collective.

    `tensors` are parameters and buffers by name, empty in the other processes. At most one whole tensor is on the
    device at a time. Tied parameters are one parameter, and stay so.
    """

    def allocate(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device=device) if tensor.is_meta else tensor

    root._apply(allocate)  # type: ignore[no-untyped-call]
    is_first = distributed.get_rank() == 0
    with torch.no_grad():
        for name, weight in _parameters(vlm).items():
            found = tensors[name].detach() if is_first else torch.empty(weight.shape, dtype=weight.dtype)
            whole = found.to(device=vlm.device, dtype=weight.dtype)
            if isinstance(weight, DTensor):
                part = distribute_tensor(whole, weight.device_mesh, weight.placements)
                weight.to_local().copy_(part.to_local())
            else:
                distributed.broadcast(whole, 0)
                weight.copy_(whole)
        for name, buffer in vlm.model.named_buffers():
            if is_first:
                buffer.copy_(tensors[name])
            distributed.broadcast(buffer, 0)


def reshard(root: ShardedRoot) -> None:
    """Free the weights that a pass without a backward pass left gathered: those of the root, or of all layers.

    An optimizer that took the model's weights in between would train gathered copies.
    """
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def score_together(
    reference: Reference, pairs: Sequence[Pair], processes: Processes, run_with_weights: RunWithWeights
) -> None:
    """Score all pairs with a reference whose weights are the sharded policy's, and keep the numbers; collective.

    Each process scores its share. Gathered weights need as many passes of each process, so one whose row is cached or
    missing scores along with the others.
    """
    share = processes.share(pairs)
    for number in range(-(-len(pairs) // processes.count)):
        requests = reference.requests(share[number] if number < len(share) else pairs[0])
        missing = [not reference.is_cached(each) for each in requests]
        if not any(any(each) for each in processes.gather(missing if number < len(share) else [])):
            continue
        for request, is_missing in zip(requests, missing, strict=True):

            def score(request=request, is_missing=is_missing) -> None:  # type: ignore[no-untyped-def]
                reference.score(request, keep=is_missing)

            run_with_weights(score)
    own = {pair.id: reference.numbers(pair) for pair in share}
    reference.keep({name: row for rows in processes.gather(own) for name, row in rows.items()})


def _parameters(vlm: VLM) -> dict[str, Tensor]:
    return dict(vlm.model.named_parameters())
