"""Multimodal DPO: the same answer must be likelier with its picture than with a weakened one, and not fall itself.

Three terms that add up to mDPO, each also a loss of its own, so that an objective may weigh them. How a picture is
weakened is told by `sightline.train`; the paper crops all but a fifth of it at most.
"""

from torch.nn.functional import logsigmoid

from sightline.losses.dpo import dpo, rewards
from sightline.losses.types import LossOut, PairLogps


def mdpo(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossOut:
    """DPO + conditional + anchored preference, delta = 0, as in the authors' code (Wang et al. 2024, 2406.11839)."""
    terms = (
        dpo(policy, reference, beta=beta),
        conditional(policy, reference, beta=beta),
        anchored(policy, reference, beta=beta, delta=0.0),
    )
    return LossOut(sum((term.loss for term in terms[1:]), terms[0].loss), *rewards(policy, reference, beta))


def conditional(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossOut:
    """The chosen answer with its picture against the same with a weakened one (2406.11839, L_CoPO).

    What stands as the rejected reward is that of the chosen answer given the weakened picture.
    """
    whole = beta * (policy.chosen - reference.chosen)
    weakened = beta * (policy.field("weakened_chosen") - reference.field("weakened_chosen"))
    return LossOut(-logsigmoid(whole - weakened), whole.detach(), weakened.detach())


def anchored(policy: PairLogps, reference: PairLogps, *, beta: float, delta: float) -> LossOut:
    """The chosen answer's reward is to lie above `delta` (2406.11839, L_AncPO), against likelihood displacement."""
    loss = -logsigmoid(beta * (policy.chosen - reference.chosen) - delta)
    return LossOut(loss, *rewards(policy, reference, beta))


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
