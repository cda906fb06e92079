"""The loss of reward models: the chosen answer's score above the rejected one's. No log-prob and no reference in it."""

from torch.nn.functional import logsigmoid

from sightline.losses.types import LossOut, PairLogps


def bradley_terry(scores: PairLogps) -> LossOut:
    """-log sigma(r(x, y+) - r(x, y-)) of each pair (2407.02477, Eq. 1 without its stray log; Bradley and Terry 1952).

    `scores.chosen` and `scores.rejected` are the scores of a reward head; they are the rewards, too.
    """
    return LossOut(-logsigmoid(scores.chosen - scores.rejected), scores.chosen.detach(), scores.rejected.detach())
