"""AdamW without decay on biases and norms, and its learning-rate schedule with warm-up.

The rate is a pure function of the step, so there is no schedule state to save. `loop` applies both.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from sightline.train.config import OptimizerConfig


def make_optimizer(
    weights: Iterable[tuple[str, nn.Parameter]],
    config: OptimizerConfig,
    rate_of: Callable[[str], float | None] = lambda _: None,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 1711.05101) over the named weights that require gradients.

    Weight decay applies to matrices only: biases and norm weights have one dimension. `rate_of` gives a weight's own
    peak rate, or None for `config.lr`; groups at `config.lr` come first.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in weights:
        if weight.requires_grad:
            own = rate_of(name)
            decay = config.weight_decay if weight.ndim >= 2 else 0.0
            groups.setdefault((config.lr if own is None else own, decay), []).append(weight)
    order = sorted(groups, key=lambda group: (group[0] != config.lr, group[0], -group[1]))
    parameter_groups = [
        {"params": groups[rate, decay], "lr": rate, "initial_lr": rate, "weight_decay": decay} for rate, decay in order
    ]
    return torch.optim.AdamW(parameter_groups, betas=config.betas)


#: name -> share of the peak rate, given the fraction (0 to 1) of the steps after warm-up.
DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda fraction: 0.5 * (1.0 + math.cos(math.pi * fraction)),
    "linear": lambda fraction: 1.0 - fraction,
    "constant": lambda _: 1.0,
}


def make_schedule(config: OptimizerConfig, steps: int) -> Callable[[int], float]:
    """The share of the peak learning rate at each step (from 0) of a run of `steps` steps.

    The share rises linearly over the first `warmup_fraction` of the steps (rounded up), is 1 at the next step, and then
    decays; a cosine would reach 0 one step after the last.
    """
    warmup = math.ceil(config.warmup_fraction * steps)

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return DECAYS[config.schedule]((step - warmup) / (steps - warmup))

    return share
