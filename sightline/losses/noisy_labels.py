"""DPO where a share `epsilon` of the pairs is believed to be the wrong way round."""

from torch.nn.functional import logsigmoid

from sightline.losses.dpo import rewards
from sightline.losses.types import LossOut, PairLogps


def conservative_dpo(policy: PairLogps, reference: PairLogps, *, beta: float, epsilon: float) -> LossOut:
    """Cross-entropy with smoothed labels (Mitchell 2023, "A note on DPO with noisy preferences", Eq. 3)."""
    logits = beta * ((policy.chosen - reference.chosen) - (policy.rejected - reference.rejected))
    loss = -(1 - epsilon) * logsigmoid(logits) - epsilon * logsigmoid(-logits)
    return LossOut(loss, *rewards(policy, reference, beta))


def robust_dpo(policy: PairLogps, reference: PairLogps, *, beta: float, epsilon: float) -> LossOut:
    """The unbiased estimate of DPO's loss under flipped labels (Chowdhury et al. 2024, 2403.00409, Eq. 12)."""
    logits = beta * ((policy.chosen - reference.chosen) - (policy.rejected - reference.rejected))
    loss = (-(1 - epsilon) * logsigmoid(logits) + epsilon * logsigmoid(-logits)) / (1 - 2 * epsilon)
    return LossOut(loss, *rewards(policy, reference, beta))
