"""Direct preference optimization.

The sigmoid loss of the original paper on summed log-probabilities, and the same on means; `noisy_labels` has its
variants for labels that may be wrong. `table` says what each needs.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from sightline.losses.types import LossOut, PairLogps


def dpo(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossOut:
    """DPO loss of each pair (Rafailov et al. 2023, 2305.18290, Eq. 7; 2407.02477, Eq. 3).

    `beta` > 0 is the strength of the pull towards the reference. The rewards are `beta * log(policy / reference)`
    (Rafailov, Eq. 5 without the term that depends on the prompt alone), detached; all outputs have shape "pair".
    """
    chosen_ratio = policy.chosen - reference.chosen  # log pi(y+|x) / ref(y+|x)
    rejected_ratio = policy.rejected - reference.rejected  # log pi(y-|x) / ref(y-|x)
    loss = -logsigmoid(beta * (chosen_ratio - rejected_ratio))  # Eq. 7
    return LossOut(loss, *rewards(policy, reference, beta))


def normalized_dpo(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossOut:
    """DPO on mean instead of summed log-probs (Meng et al. 2024, 2405.14734, table 4, "length-normalized DPO")."""
    (chosen, rejected), (ref_chosen, ref_rejected) = policy.means(), reference.means()
    chosen_reward, rejected_reward = beta * (chosen - ref_chosen), beta * (rejected - ref_rejected)
    loss = -logsigmoid(chosen_reward - rejected_reward)
    return LossOut(loss, chosen_reward.detach(), rejected_reward.detach())


def rewards(
    policy: PairLogps, reference: PairLogps, beta: float
) -> tuple[Float[Tensor, "pair"], Float[Tensor, "pair"]]:
    """The implicit rewards of both answers, detached (Rafailov, Eq. 5, without the term of the prompt alone)."""
    chosen, rejected = policy.chosen - reference.chosen, policy.rejected - reference.rejected
    return beta * chosen.detach(), beta * rejected.detach()
