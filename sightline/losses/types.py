"""What goes into a loss and what comes out: log-probabilities of pairs, what a loss needs of them, losses and rewards.

Plain tensors, one number a pair; no model and no reduction over pairs. The functions between the two are in files of
their own, such as `dpo`; `table` says what each needs.
"""

from dataclasses import dataclass
from enum import StrEnum

from jaxtyping import Float, Int
from torch import Tensor


class Need(StrEnum):
    """What a loss needs beyond the policy's log-probs of both answers; the training loop asks and never the name.

    Each is needed of the policy and, where the loss has a reference, of every reference too.
    """

    REFERENCE = "reference"  # the same of one frozen model
    REFERENCES = "references"  # of several, the first being the primary one: the policy without its adapter
    SECOND_REJECTED = "second rejected"  # another rejected answer to the same prefix
    SPANS = "spans"  # sums over the tokens inside the correction spans of both answers
    WEAKENED = "weakened"  # the chosen answer given a weakened picture
    BLIND = "blind"  # both answers given the prompt without its picture, or with zeros for its pixels
    MISMATCHED = "mismatched"  # another pair's answer after this pair's prefix
    SHIFT = "shift"  # the running mean of `LossOut.level`, as the keyword `shift`
    REWARDS = "rewards"  # `chosen` and `rejected` are scores of a reward head and no log-probs


@dataclass(frozen=True)
class PairLogps:
    """Log-probabilities (nats) of whole answers given their prefix, summed over answer tokens, end of turn included.

    The numbers of those tokens are there for losses that go by means. The fields from `second_rejected` on are None
    where no loss asked for them, each named by its `Need`. `*_changed` are sums, and `*_changed_tokens` counts, over
    the tokens inside the pair's correction spans, so a part of `chosen` and `rejected`.
    """

    chosen: Float[Tensor, "pair"]
    rejected: Float[Tensor, "pair"]
    chosen_tokens: Int[Tensor, "pair"] | None = None
    rejected_tokens: Int[Tensor, "pair"] | None = None
    second_rejected: Float[Tensor, "pair"] | None = None
    second_rejected_tokens: Int[Tensor, "pair"] | None = None
    chosen_changed: Float[Tensor, "pair"] | None = None
    rejected_changed: Float[Tensor, "pair"] | None = None
    chosen_changed_tokens: Int[Tensor, "pair"] | None = None
    rejected_changed_tokens: Int[Tensor, "pair"] | None = None
    weakened_chosen: Float[Tensor, "pair"] | None = None
    blind_chosen: Float[Tensor, "pair"] | None = None
    blind_rejected: Float[Tensor, "pair"] | None = None
    mismatched: Float[Tensor, "pair"] | None = None
    mismatched_tokens: Int[Tensor, "pair"] | None = None

    def means(self) -> tuple[Float[Tensor, "pair"], Float[Tensor, "pair"]]:
        """Log-probabilities by token, of the chosen and the rejected answers; ValueError as `lengths`."""
        chosen_tokens, rejected_tokens = self.lengths()
        return self.chosen / chosen_tokens, self.rejected / rejected_tokens

    def lengths(self) -> tuple[Int[Tensor, "pair"], Int[Tensor, "pair"]]:
        """The numbers of tokens.

        Raises:
            ValueError: they are not given.
        """
        return self.field("chosen_tokens"), self.field("rejected_tokens")

    def field(self, name: str) -> Tensor:
        """A field by its name.

        Raises:
            ValueError: it is not given.
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise ValueError(f"{name} of the pairs are needed and not given")
        return value


@dataclass(frozen=True)
class LossOut:
    """The loss of each pair, to be averaged by the caller, and the implicit rewards, which carry no gradient.

    `level`, without gradient too, is there where a loss needs `Need.SHIFT`: what its running mean takes in.
    """

    loss: Float[Tensor, "pair"]
    chosen_reward: Float[Tensor, "pair"]
    rejected_reward: Float[Tensor, "pair"]
    level: Float[Tensor, "pair"] | None = None
