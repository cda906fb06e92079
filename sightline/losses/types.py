"""What goes into a loss and what comes out: log-probabilities of pairs, losses and implicit rewards.

Plain tensors, one number a pair; no model and no reduction over pairs. The functions between the two are in files of
their own, such as `dpo`.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class PairLogps:
    """Log-probabilities (nats) of whole answers given their prefix, summed over answer tokens, end of turn included.

    The numbers of those tokens are there for losses that go by means.
    """

    chosen: Float[Tensor, "pair"]
    rejected: Float[Tensor, "pair"]
    chosen_tokens: Int[Tensor, "pair"] | None = None
    rejected_tokens: Int[Tensor, "pair"] | None = None

    def means(self) -> tuple[Float[Tensor, "pair"], Float[Tensor, "pair"]]:
        """Log-probabilities by token, of the chosen and the rejected answers; ValueError as `lengths`."""
        chosen_tokens, rejected_tokens = self.lengths()
        return self.chosen / chosen_tokens, self.rejected / rejected_tokens

    def lengths(self) -> tuple[Int[Tensor, "pair"], Int[Tensor, "pair"]]:
        """The numbers of tokens.

        Raises:
            ValueError: they are not given.
        """
        if self.chosen_tokens is None or self.rejected_tokens is None:
            raise ValueError("the numbers of tokens are needed and not given")
        return self.chosen_tokens, self.rejected_tokens


@dataclass(frozen=True)
class LossOut:
    """The loss of each pair, to be averaged by the caller, and the implicit rewards, which carry no gradient."""

    loss: Float[Tensor, "pair"]
    chosen_reward: Float[Tensor, "pair"]
    rejected_reward: Float[Tensor, "pair"]
