"""Averaged DPO: one chosen answer against two rejected ones, such as an external and a hallucinated one.

With an answer to a distorted picture as the second it is POVID's second stage as its public code has it, which the
paper follows. Which answers these are is told by the pairs; `pairs.average` puts such pairs together.
"""

from torch.nn.functional import logsigmoid

from sightline.losses.types import LossOut, PairLogps


def averaged_dpo(policy: PairLogps, reference: PairLogps, *, beta: float, gamma: float) -> LossOut:
    """DPO averaged over two rejected answers (2407.02477, Eq. 5, with gamma = 0.5 there).

    `gamma` is the weight of the first rejected answer; 1 is DPO on it alone. The rejected reward is the mean of both by
    the same weights.
    """
    chosen = beta * (policy.chosen - reference.chosen)
    first = beta * (policy.rejected - reference.rejected)
    second = beta * (policy.field("second_rejected") - reference.field("second_rejected"))
    loss = -gamma * logsigmoid(chosen - first) - (1 - gamma) * logsigmoid(chosen - second)  # Eq. 5
    return LossOut(loss, chosen.detach(), (gamma * first + (1 - gamma) * second).detach())
