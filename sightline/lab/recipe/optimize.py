"""Muon and AdamW with a warm-up and a cosine, as the stages of the recipe use them, and the format they compute in."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from sightline.lab.recipe.muon import Float32Muon
from sightline.models.precision import computes_bfloat16


def fast_format(device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where the device computes in it; float32 where that would take many times as long."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_bfloat16(device.type))


def make_optimizers(
    parameters: Iterable[tuple[str, nn.Parameter]], rate: float, decay: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of hidden layers, AdamW for the rest, both at `rate`; only matrices of Muon's decay.

    With Muon (Jordan et al. 2024) the language model learns to answer by the picture within a few hundred steps; with
    AdamW on the same rows its yes/no answers were still near chance then (docs/lab.md has the comparison).
    """
    named = [(name, p) for name, p in parameters if p.requires_grad]
    hidden = [p for name, p in named if p.ndim == 2 and ".layers." in name]
    rest = [p for name, p in named if not (p.ndim == 2 and ".layers." in name)]
    made: list[torch.optim.Optimizer] = []
    if rest:
        made.append(torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True))
    if hidden:
        # adjusted so that an update is as large as AdamW's: one rate for both
        kind = torch.optim.Muon if computes_bfloat16(hidden[0].device.type) else Float32Muon
        made.append(kind(hidden, lr=rate, momentum=0.95, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return made


def scheduled(optimizers: Sequence[torch.optim.Optimizer], steps: int, floor: float = 0.02) -> Iterator[int]:
    """Yield 0 .. steps - 1 with the learning rate set: linear warm-up over 5 %, then a cosine down to `floor`."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peak = [group["lr"] for group in groups]
    warmup = max(1, steps // 20)
    for step in range(steps):
        scale = min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group, rate in zip(groups, peak, strict=True):
            group["lr"] = rate * scale
        yield step


def take_step(optimizers: Sequence[torch.optim.Optimizer], loss: torch.Tensor) -> None:
    """One update from `loss`, the gradient clipped to norm 1.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss.item()}")
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    trained = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(trained, 1.0)
    for optimizer in optimizers:
        optimizer.step()
