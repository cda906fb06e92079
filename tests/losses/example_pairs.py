"""Example pairs for the losses' tests, in float64, and an objective of each loss with mid-range parameters."""

import math

import torch
from torch import Tensor

from sightline.losses.objective import Objective, Term, make_objective
from sightline.losses.table import LOSSES
from sightline.losses.types import LossOut, PairLogps

TOKENS = {
    "chosen_tokens": 4,
    "rejected_tokens": 5,
    "second_rejected_tokens": 3,
    "chosen_changed_tokens": 2,
    "rejected_changed_tokens": 3,
    "mismatched_tokens": 6,
}
POLICY = {
    "chosen": -6.0,
    "rejected": -5.0,
    "second_rejected": -4.5,
    "chosen_changed": -3.5,
    "rejected_changed": -2.0,
    "weakened_chosen": -7.0,
    "blind_chosen": -8.0,
    "blind_rejected": -5.5,
    "mismatched": -9.0,
}
REFERENCE = {
    "chosen": -5.0,
    "rejected": -5.5,
    "second_rejected": -4.0,
    "chosen_changed": -3.0,
    "rejected_changed": -2.5,
    "weakened_chosen": -6.5,
    "blind_chosen": -7.0,
    "blind_rejected": -6.0,
    "mismatched": -9.5,
}
OTHER = {"chosen": -5.6, "rejected": -5.2}


def column(*values: float, grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def logps(values: dict[str, float], *, grad: bool = False, **tokens: int) -> PairLogps:
    """A pair with the given log-probs and, unless overridden, the token counts of `TOKENS`."""
    sums = {name: column(value, grad=grad) for name, value in values.items()}
    counts = {name: torch.tensor([count]) for name, count in {**TOKENS, **tokens}.items()}
    return PairLogps(**sums, **counts)


def example_objective(name: str, **parameters: object) -> Objective:
    """An objective of one loss with example parameters unless overridden."""
    examples = {parameter.name: parameter.example for parameter in LOSSES[name].parameters}
    return make_objective([Term(name, parameters={**examples, **parameters})])


def compute_loss(name: str, policy: PairLogps, reference: PairLogps, **parameters: object) -> LossOut:
    """Compute a loss against one reference, or two if it needs several."""
    return example_objective(name, **parameters)(policy, [reference, logps(OTHER)], shift=0.25)


def log_sigmoid(x: float) -> float:
    """The definition, in Python floats."""
    return math.log(1 / (1 + math.exp(-x)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
