"""Losses without a reference: SFT on chosen answers, SimPO and ORPO on mean log-probs; Bradley-Terry on scores."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from sightline.losses.types import LossOut, PairLogps


def sft(policy: PairLogps) -> LossOut:
    """Negative mean log-prob of the chosen answer's tokens; the rejected one is unused. Rewards are mean log-probs."""
    chosen, rejected = policy.means()
    return LossOut(-chosen, chosen.detach(), rejected.detach())


def simpo(policy: PairLogps, *, beta: float, gamma: float) -> LossOut:
    """SimPO (Meng et al. 2024, 2405.14734, Eq. 6); `gamma` is the target reward margin."""
    chosen, rejected = policy.means()
    loss = -logsigmoid(beta * chosen - beta * rejected - gamma)  # Eq. 6
    return LossOut(loss, beta * chosen.detach(), beta * rejected.detach())  # Eq. 4


def orpo(policy: PairLogps, *, odds_weight: float) -> LossOut:
    """ORPO (Hong et al. 2024, 2403.07691, Eq. 6 and 7): SFT plus `odds_weight` times the log odds ratio loss."""
    chosen, rejected = policy.means()
    odds = _log_odds(chosen) - _log_odds(rejected)  # log of Eq. 4
    loss = -chosen - odds_weight * logsigmoid(odds)  # Eq. 6 with Eq. 7
    return LossOut(loss, odds_weight * chosen.detach(), odds_weight * rejected.detach())


def _log_odds(logps: Float[Tensor, "pair"]) -> Float[Tensor, "pair"]:
    """log(p / (1 - p)) of mean probabilities below 1 (Eq. 3)."""
    return logps - torch.log(-torch.expm1(logps))


def bradley_terry(scores: PairLogps) -> LossOut:
    """-log sigma(r(x, y+) - r(x, y-)) of each pair (2407.02477, Eq. 1 without its stray log; Bradley and Terry 1952).

    `scores.chosen` and `scores.rejected` are scores of a reward head, and also the rewards.
    """
    return LossOut(-logsigmoid(scores.chosen - scores.rejected), scores.chosen.detach(), scores.rejected.detach())
