"""Multimodal DPO (mDPO) and V-DPO: losses that compare an answer with and without its image.

mDPO is the sum of three terms, each also a separate loss, so that an objective may weight them. `sightline.train`
corrupts the images; the paper keeps at most a fifth of the image as a crop.
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
    """The chosen answer with its image against the same answer with a corrupted image (2406.11839, L_CoPO).

    The rejected reward is that of the chosen answer given the corrupted image.
    """
    whole = beta * (policy.chosen - reference.chosen)
    weakened = beta * (policy.field("weakened_chosen") - reference.field("weakened_chosen"))
    return LossOut(-logsigmoid(whole - weakened), whole.detach(), weakened.detach())


def anchored(policy: PairLogps, reference: PairLogps, *, beta: float, delta: float) -> LossOut:
    """Keep the chosen answer's reward above `delta`, against likelihood displacement (2406.11839, L_AncPO)."""
    loss = -logsigmoid(beta * (policy.chosen - reference.chosen) - delta)
    return LossOut(loss, *rewards(policy, reference, beta))


GUIDES = ("policy", "reference")


def vdpo(policy: PairLogps, reference: PairLogps, *, beta: float, gamma: float, guide: str) -> LossOut:
    """V-DPO loss of each pair (Xie et al. 2024, 2411.02712), on log-probs of whole answers.

    The policy's log-prob becomes gamma * log pi(y|v,x) - (gamma - 1) * log pi(y|x), the second term without gradient
    and by the `guide`: the current policy ("policy", the authors' `dynamic_llm`) or the frozen reference. The reference
    is not guided, and the rewards are those of the unguided policy. This is the default of the authors' released code
    (YuxiXie/V-DPO, `calculate_log_probs`); its `use_logits`, which normalizes the guided distribution, is not
    implemented. gamma = 1 is DPO and below 1 the guidance is reversed, so gamma must exceed 1. The released script has
    gamma 0, which removes the policy from the loss.
    """
    blind = policy if guide == "policy" else reference
    chosen = gamma * policy.chosen - (gamma - 1) * blind.field("blind_chosen").detach()
    rejected = gamma * policy.rejected - (gamma - 1) * blind.field("blind_rejected").detach()
    margin = (chosen - reference.chosen) - (rejected - reference.rejected)
    return LossOut(-logsigmoid(beta * margin), *rewards(policy, reference, beta))
