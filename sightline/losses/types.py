"""Inputs and outputs of losses: log-probabilities of pairs, the needs of a loss, losses and rewards.

Plain tensors with one number per pair; no model and no reduction over pairs. The losses are in `dpo`, `kto` and their
neighbors; `table` lists what each needs.
"""

from dataclasses import dataclass
from enum import StrEnum

from jaxtyping import Float, Int
from torch import Tensor


class Requirement(StrEnum):
    """Inputs of a loss beyond the policy's log-probs of both answers; the training loop depends only on these.

    Each is required of the policy and, if the loss has a reference, of every reference.
    """

    REFERENCE = "reference"  # log-probs of a frozen reference model
    REFERENCES = "references"  # of several, the first of which is the policy without its adapter
    SECOND_REJECTED = "second rejected"  # another rejected answer to the same prefix
    SPANS = "spans"  # sums over the tokens inside the correction spans of both answers
    CORRUPTED_IMAGE = "corrupted image"  # the chosen answer given a corrupted image
    NO_IMAGE = "no image"  # both answers given the prompt without its image, or with its pixels zeroed
    MISMATCHED = "mismatched"  # another pair's answer given this pair's prefix
    SHIFT = "shift"  # the running mean of `LossOut.level`, as the keyword `shift`
    REWARDS = "rewards"  # `chosen` and `rejected` are scores of a reward head instead of log-probs


@dataclass(frozen=True)
class PairLogps:
    """Log-probabilities (nats) of whole answers given their prefix, summed over answer tokens, end of turn included.

    `*_tokens` count those tokens, for losses on means. The fields from `second_rejected` on correspond to a
    `Requirement` and are None if no loss needs them. `*_changed` are the parts of the sums, and `*_changed_tokens` of
    the counts, inside the pair's correction spans.
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
        """Mean log-probabilities per token of chosen and rejected answers; raises ValueError as `lengths`."""
        chosen_tokens, rejected_tokens = self.lengths()
        return self.chosen / chosen_tokens, self.rejected / rejected_tokens

    def lengths(self) -> tuple[Int[Tensor, "pair"], Int[Tensor, "pair"]]:
        """The numbers of tokens of chosen and rejected answers.

        Raises:
            ValueError: they are missing.
        """
        return self.field("chosen_tokens"), self.field("rejected_tokens")

    def field(self, name: str) -> Tensor:
        """A field by its name.

        Raises:
            ValueError: it is missing.
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise ValueError(f"the loss needs {name} of the pairs, which is missing")
        return value


@dataclass(frozen=True)
class LossOut:
    """The loss of each pair, to be averaged by the caller, and the implicit rewards, which have no gradient.

    `level`, also without gradient, is set if a loss has `Requirement.SHIFT`: its running mean becomes the shift.
    """

    loss: Float[Tensor, "pair"]
    chosen_reward: Float[Tensor, "pair"]
    rejected_reward: Float[Tensor, "pair"]
    level: Float[Tensor, "pair"] | None = None
