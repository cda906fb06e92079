"""Kahneman-Tversky optimization (KTO) and BCO: unpaired losses of each answer against a common baseline.

Both answers of a pair are examples, one desirable and one undesirable. KTO's baseline is an estimate of the divergence
from the reference on answers to other prompts, which `sightline.train` scores.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from sightline.losses.dpo import rewards
from sightline.losses.types import LossOut, PairLogps


def kto(
    policy: PairLogps, reference: PairLogps, *, beta: float, chosen_weight: float, rejected_weight: float
) -> LossOut:
    """KTO loss of each pair, the mean over its two answers (Ethayarajh et al. 2024, 2402.01306, L_KTO).

    The weights are lambda_D and lambda_U. A caller that splits a step into batches sets every pair's `mismatched` to
    the step's mean, so that the result does not depend on the batches.
    """
    baseline = divergence(policy, reference)
    chosen, rejected = policy.chosen - reference.chosen, policy.rejected - reference.rejected  # r of the paper
    desirable = chosen_weight * torch.sigmoid(-beta * (chosen - baseline))  # lambda - v, v = lambda sigma(...)
    undesirable = rejected_weight * torch.sigmoid(-beta * (baseline - rejected))
    return LossOut((desirable + undesirable) / 2, *rewards(policy, reference, beta))


def divergence(policy: PairLogps, reference: PairLogps) -> Float[Tensor, ""]:
    """z0: the mean log-ratio of mismatched answers, at least 0, without gradient (2402.01306)."""
    return (policy.field("mismatched") - reference.field("mismatched")).mean().clamp(min=0).detach()


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
