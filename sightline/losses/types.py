"""What goes into a loss and what comes out: log-probabilities of pairs, losses and implicit rewards.

Plain tensors, one number a pair; no model and no reduction over pairs. The functions between the two are in files of
their own, such as `dpo`.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class PairLogps:
    """Log-probabilities (nats) of whole answers given their prefix, summed over answer tokens, end of turn included."""

    chosen: Float[Tensor, "pair"]
    rejected: Float[Tensor, "pair"]


@dataclass(frozen=True)
class LossOut:
    """The loss of each pair, to be averaged by the caller, and the implicit rewards, which carry no gradient."""

    loss: Float[Tensor, "pair"]
    chosen_reward: Float[Tensor, "pair"]
    rejected_reward: Float[Tensor, "pair"]
