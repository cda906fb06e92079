"""Identity preference optimization: a squared distance to a margin, which cannot be driven to infinity."""

from sightline.losses.dpo import rewards
from sightline.losses.types import LossOut, PairLogps


def ipo(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossOut:
    """IPO loss of each pair (Azar et al. 2023, 2310.12036, Eq. 17, whose tau is `beta`), on summed log-probs.

    TRL divides log-probs by the answers' lengths first; the paper does not, and neither do we.
    """
    out = rewards(policy, reference, beta)
    margin = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)  # h
    return LossOut((margin - 1 / (2 * beta)) ** 2, *out)  # Eq. 17
