"""Multi-reference preference optimization: DPO against one virtual reference made of several.

The first reference is the primary one, the policy without its adapter; the others are kept near it by clipping. Where
the paper and the authors' code differ, a word in the config decides; who scores the references is `sightline.train`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.errors import InputError
from sightline.losses.dpo import dpo, rewards
from sightline.losses.types import LossOut, PairLogps

WEIGHTS = ("paper", "code", "uniform")
CLIPS = ("adaptive", "fixed")
SMALLEST = 1e-6  # of a reference's part in the weights, as in the authors' code, so that ties are shared out evenly


def mrpo(
    policy: PairLogps, references: Sequence[PairLogps], *, beta: float, eta: float, clip: str, weights: str
) -> LossOut:
    """MRPO loss of each pair (Le et al. 2024, 2405.16388) with clipped references and weights by pair.

    `eta` is the width of the clipping and `clip` how it is spread (`clipped`); `weights` is "paper" or "code"
    (`adaptive_weights`, on 1 / pi of the same reference or of the other one) or "uniform". As in the code, weights come
    from references before clipping.

    Raises:
        InputError: "code" with other than two references, which the authors' code does not know.
    """
    if weights == "code" and len(references) != 2:
        raise InputError(
            f"loss.weights is 'code' with {len(references)} references, and the authors' code knows two; give 'paper'."
        )
    shares = uniform_weights(references) if weights == "uniform" else adaptive_weights(references)
    placed = shares.flip(0) if weights == "code" else shares
    return dpo(policy, virtual_reference(clipped(references, eta, clip), placed), beta=beta)


def multi_dpo(
    policy: PairLogps, references: Sequence[PairLogps], *, beta: float, eta: float, clip: str, weights: str
) -> LossOut:
    """The baseline of MRPO's authors: DPO's losses against each clipped reference, averaged by the same weights."""
    shares = uniform_weights(references) if weights == "uniform" else adaptive_weights(references)
    near = clipped(references, eta, clip)
    both = torch.stack([torch.stack(rewards(policy, reference, beta)) for reference in near])
    loss = torch.stack([dpo(policy, reference, beta=beta).loss for reference in near])
    chosen, rejected = (shares[:, None] * both).sum(0)
    return LossOut((shares * loss).sum(0), chosen, rejected)


def virtual_reference(references: Sequence[PairLogps], weights: Float[Tensor, "reference pair"]) -> PairLogps:
    """(sum_k w_k / pi_k)^-1 of both answers: the harmonic mean that closes MRPO's form (2405.16388)."""
    chosen = torch.stack([reference.chosen for reference in references])
    rejected = torch.stack([reference.rejected for reference in references])
    return PairLogps(-torch.logsumexp(weights.log() - chosen, 0), -torch.logsumexp(weights.log() - rejected, 0))


def adaptive_weights(references: Sequence[PairLogps]) -> Float[Tensor, "reference pair"]:
    """ARWC: more for the reference that tells the answers of a pair apart more; adds up to 1 over references."""
    apart = torch.stack([(reference.chosen - reference.rejected).abs() for reference in references]) + SMALLEST
    return apart / apart.sum(0)


def uniform_weights(references: Sequence[PairLogps]) -> Float[Tensor, "reference pair"]:
    """The same for all."""
    return torch.stack([torch.ones_like(reference.chosen) for reference in references]) / len(references)


def clipped(references: Sequence[PairLogps], eta: float, clip: str) -> list[PairLogps]:
    """CTRO: log-probs of all but the primary reference kept within a share epsilon of the primary one's.

    With "fixed", epsilon is `eta` for both answers; with "adaptive", `eta` is divided between them by the size of their
    log-probs, as means over all references.
    """
    primary, *others = references
    sizes = [torch.stack([getattr(r, side) for r in references]).mean(0).abs() for side in ("chosen", "rejected")]
    share = sizes[0] / (sizes[0] + sizes[1])
    chosen_eta, rejected_eta = (eta * share, eta * (1 - share)) if clip == "adaptive" else (eta, eta)
    near = [
        PairLogps(
            _near(other.chosen, primary.chosen, chosen_eta), _near(other.rejected, primary.rejected, rejected_eta)
        )
        for other in others
    ]
    return [primary, *near]


def _near(
    logps: Float[Tensor, "pair"], center: Float[Tensor, "pair"], epsilon: Float[Tensor, "pair"] | float
) -> Float[Tensor, "pair"]:
    """Between (1 + epsilon) and (1 - epsilon) times a center below 0."""
    return logps.clamp((1 + epsilon) * center, (1 - epsilon) * center)
