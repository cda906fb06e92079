"""Dense DPO: the words that a correction changed count for more than those that both answers share.

RLHF-V's objective for pairs whose rejected answer was corrected by hand. Where the changed tokens are is told by the
pair's spans; their sums come from `sightline.train`.
"""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from sightline.losses.types import LossOut, PairLogps


def dense_dpo(policy: PairLogps, reference: PairLogps, *, beta: float, gamma: float) -> LossOut:
    """DPO on weighted means of token log-probs (Yu et al. 2023, 2312.00849, dense DPO).

    `gamma` is the weight of a changed token beside 1 of an unchanged one; the paper has 5 and beta 0.5. With gamma 1,
    or no changed token, it is DPO on means. Both models are weighted alike, since the spans belong to the pair.
    """
    chosen = beta * (dense_chosen(policy, gamma) - dense_chosen(reference, gamma))
    rejected = beta * (dense_rejected(policy, gamma) - dense_rejected(reference, gamma))
    return LossOut(-logsigmoid(chosen - rejected), chosen.detach(), rejected.detach())


def dense_chosen(logps: PairLogps, gamma: float) -> Float[Tensor, "pair"]:
    """The weighted mean log-prob of the chosen answer's tokens."""
    tokens, changed_tokens = logps.field("chosen_tokens"), logps.field("chosen_changed_tokens")
    return _weighted_mean(logps.chosen, logps.field("chosen_changed"), tokens, changed_tokens, gamma)


def dense_rejected(logps: PairLogps, gamma: float) -> Float[Tensor, "pair"]:
    """The weighted mean log-prob of the rejected answer's tokens."""
    tokens, changed_tokens = logps.field("rejected_tokens"), logps.field("rejected_changed_tokens")
    return _weighted_mean(logps.rejected, logps.field("rejected_changed"), tokens, changed_tokens, gamma)


def _weighted_mean(
    whole: Float[Tensor, "pair"],
    changed: Float[Tensor, "pair"],
    tokens: Int[Tensor, "pair"],
    changed_tokens: Int[Tensor, "pair"],
    gamma: float,
) -> Float[Tensor, "pair"]:
    """(sum over unchanged + gamma * sum over changed) / (number unchanged + gamma * number changed)."""
    weights = tokens + (gamma - 1) * changed_tokens.to(whole.dtype)
    return (whole + (gamma - 1) * changed) / weights
