"""Vision-guided DPO: the policy is scored as if it were sampled with guidance away from what it says without sight.

The margin that must be won is so much wider as the blind model already prefers the chosen answer, so a pair that the
language alone decides teaches less. What the blind side is shown, nothing or zeros, is decided by `sightline.train`.
"""

from torch.nn.functional import logsigmoid

from sightline.losses.dpo import rewards
from sightline.losses.types import LossOut, PairLogps

GUIDES = ("policy", "reference")


def vdpo(policy: PairLogps, reference: PairLogps, *, beta: float, gamma: float, guide: str) -> LossOut:
    """V-DPO loss of each pair (Xie et al. 2024, 2411.02712), on log-probs of whole answers.

    The policy's log-prob becomes gamma * log pi(y|v,x) - (gamma - 1) * log pi(y|x), the second without gradient and by
    the `guide`: the policy as it is ("policy", the authors' `dynamic_llm`) or the frozen reference. The reference is
    not guided, and the rewards are those of the policy without guidance. This is the default of the authors' released
    code (YuxiXie/V-DPO, `calculate_log_probs`); its `use_logits`, which normalizes the guided distribution, is not
    here. gamma = 1 is DPO and below 1 the guidance turns round, so gamma is above 1. The released script has gamma 0,
    with which the policy drops out of the loss.
    """
    blind = policy if guide == "policy" else reference
    chosen = gamma * policy.chosen - (gamma - 1) * blind.field("blind_chosen").detach()
    rejected = gamma * policy.rejected - (gamma - 1) * blind.field("blind_rejected").detach()
    margin = (chosen - reference.chosen) - (rejected - reference.rejected)
    return LossOut(-logsigmoid(beta * margin), *rewards(policy, reference, beta))
