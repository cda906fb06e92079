"""The hinge loss of SLiC on implicit rewards: nothing is learned from a pair whose margin is wide enough."""

from torch.nn.functional import relu

from sightline.losses.dpo import rewards
from sightline.losses.types import LossOut, PairLogps


def hinge(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossOut:
    """SLiC as a hinge on the log-ratios (Zhao et al. 2023, 2305.10425; this form: Tang et al. 2024, 2402.05749)."""
    out = rewards(policy, reference, beta)
    margin = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)
    return LossOut(relu(1 - beta * margin), *out)  # max(0, 1 - beta h)
