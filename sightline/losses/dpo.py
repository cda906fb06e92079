"""Direct preference optimization.

The sigmoid loss of the original paper on summed log-probabilities: no label smoothing, no length normalization.
`table` says what it needs.
"""

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
    return LossOut(loss, beta * chosen_ratio.detach(), beta * rejected_ratio.detach())  # Eq. 5
