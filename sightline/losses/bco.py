"""Binary classifier optimization: chosen answers are to have a reward above a shift, rejected ones one below it.

The quality term of MPO. The shift is a running mean of past rewards, which `sightline.train` keeps. InternVL's MPO runs
on TRL 0.10.1, whose `bco_pair` has such a shift, the batch under way included; later TRL (1.16) has none. Both are in
the table.
"""

from torch.nn.functional import logsigmoid

from sightline.losses.types import LossOut, PairLogps


def bco(policy: PairLogps, reference: PairLogps, *, beta: float, shift: float) -> LossOut:
    """BCO loss of each pair, the sum over its answers (Jung et al. 2024, 2404.04656; MPO: 2411.10442, L_q).

    `shift` is in units of rewards; `level` is the mean reward of both answers. The importance weights of BCO's paper
    for unpaired data are 1 for pairs.
    """
    chosen, rejected = beta * (policy.chosen - reference.chosen), beta * (policy.rejected - reference.rejected)
    loss = -logsigmoid(chosen - shift) - logsigmoid(-(rejected - shift))  # L_q+ + L_q-
    return LossOut(loss, chosen.detach(), rejected.detach(), ((chosen + rejected) / 2).detach())


def unshifted_bco(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossOut:
    """BCO with a shift of 0, which is the `bco_pair` of TRL 1.16."""
    out = bco(policy, reference, beta=beta, shift=0.0)
    return LossOut(out.loss, out.chosen_reward, out.rejected_reward)
