"""Vision-guided DPO: the policy is scored as if it were sampled with guidance away from what it says without a picture.

The margin that must be won is so much wider as the blind model already prefers the chosen answer, so a pair that the
language alone decides teaches less. How the blind scores come about is `sightline.train`.
"""

from torch.nn.functional import logsigmoid

from sightline.losses.dpo import rewards
from sightline.losses.types import LossOut, PairLogps

GUIDES = ("policy", "reference")


def vdpo(policy: PairLogps, reference: PairLogps, *, beta: float, gamma: float, guide: str) -> LossOut:
    """V-DPO loss of each pair (Xie et al. 2024, 2411.02712), on log-probs of whole answers.

    The policy's log-prob becomes gamma * log pi(y|v,x) - (gamma - 1) * log pi(y|x), the second without gradient and by
    the `guide`: the policy as it is ("policy") or the frozen reference. gamma = 1 is DPO. The rewards are those of the
    policy without guidance. The printed equation was not at hand: the form is pieced together from copies of the
    authors' code (guidance of logits, the blind side detached, the reference unguided), whose own scale of gamma may
    be another one. Summed log-probs leave out the guided distribution's norm.
    """
    blind = policy if guide == "policy" else reference
    chosen = gamma * policy.chosen - (gamma - 1) * blind.field("blind_chosen").detach()
    rejected = gamma * policy.rejected - (gamma - 1) * blind.field("blind_rejected").detach()
    margin = (chosen - reference.chosen) - (rejected - reference.rejected)
    return LossOut(-logsigmoid(beta * margin), *rewards(policy, reference, beta))
