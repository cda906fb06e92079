"""AdamW with a warm-up and a cosine, as every stage of the recipe uses it."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import nn


def make_optimizer(parameters: Iterable[tuple[str, nn.Parameter]], rate: float, decay: float) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors (biases, norms) do not."""
    named = [p for _, p in parameters if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in named if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in named if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=rate,
        betas=(0.9, 0.98),
        fused=True,
    )


def scheduled(optimizer: torch.optim.Optimizer, steps: int, floor: float = 0.02) -> Iterator[int]:
    """Yield 0 .. steps - 1 with the learning rate set: linear warm-up over 5 %, then a cosine down to `floor`."""
    peak = [group["lr"] for group in optimizer.param_groups]
    warmup = max(1, steps // 20)
    for step in range(steps):
        scale = min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group, rate in zip(optimizer.param_groups, peak, strict=True):
            group["lr"] = rate * scale
        yield step
