"""The optimizer and its learning rate: AdamW without decay on biases and norms, and cosine with warm-up.

The rate is a pure function of the step, so that there is no schedule state to save. `loop` applies both.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from sightline.train.config import OptimizerConfig


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 1711.05101) over the parameters that require gradients.

    Weight decay applies to matrices alone: biases and the weights of norms have one dimension.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.lr, betas=config.betas)


#: name -> the share of the peak rate at a fraction (0 to 1) of the way from the end of the warm-up to the end.
DECAYS: dict[str, Callable[[float], float]] = {
    "cosine": lambda fraction: 0.5 * (1.0 + math.cos(math.pi * fraction)),
    "constant": lambda _: 1.0,
}


def make_schedule(config: OptimizerConfig, steps: int) -> Callable[[int], float]:
    """The learning rate at each step, counted from 0, of a run of `steps` steps.

    It rises linearly over the first `warmup_fraction` of them (rounded up), is `config.lr` at the step after these,
    and then decays; a cosine would be 0 one step after the last.
    """
    warmup = math.ceil(config.warmup_fraction * steps)

    def rate(step: int) -> float:
        if step < warmup:
            return config.lr * (step + 1) / (warmup + 1)
        return config.lr * DECAYS[config.schedule]((step - warmup) / (steps - warmup))

    return rate
