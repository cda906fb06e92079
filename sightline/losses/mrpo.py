"""Multi-reference preference optimization (MRPO): DPO against a virtual reference that combines several.

The first reference is the primary one, the policy without its adapter; the others are clipped towards it. Where the
paper and the authors' code differ, a config option decides. `sightline.train` scores the references.
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
SMALLEST = 1e-6  # added before weights are normalized, as in the authors' code, so that zeros become equal weights


def mrpo(
    policy: PairLogps, references: Sequence[PairLogps], *, beta: float, eta: float, clip: str, weights: str
) -> LossOut:
    """MRPO loss of each pair (Le et al. 2024, 2405.16388) with clipped references and weights by pair.

    `eta` is the width of the clipping and `clip` its distribution (`clip_references`); `weights` is "paper" or "code"
    (`adaptive_weights` of the same reference or of the other one) or "uniform". As in the authors' code, weights are
    those of the references before clipping.

    Raises:
        InputError: "code" with other than two references, which the authors' code does not support.
    """
    if weights == "code" and len(references) != 2:
        raise InputError(
            f"loss.weights is 'code' with {len(references)} references; the authors' code supports two; use 'paper'."
        )
    shares = uniform_weights(references) if weights == "uniform" else adaptive_weights(references)
    placed = shares.flip(0) if weights == "code" else shares
    return dpo(policy, virtual_reference(clip_references(references, eta, clip), placed), beta=beta)


def multi_dpo(
    policy: PairLogps, references: Sequence[PairLogps], *, beta: float, eta: float, clip: str, weights: str
) -> LossOut:
    """The MRPO authors' baseline: DPO losses against each clipped reference, averaged with the same weights."""
    shares = uniform_weights(references) if weights == "uniform" else adaptive_weights(references)
    near = clip_references(references, eta, clip)
    both = torch.stack([torch.stack(rewards(policy, reference, beta)) for reference in near])
    loss = torch.stack([dpo(policy, reference, beta=beta).loss for reference in near])
    chosen, rejected = (shares[:, None] * both).sum(0)
    return LossOut((shares * loss).sum(0), chosen, rejected)


def virtual_reference(references: Sequence[PairLogps], weights: Float[Tensor, "reference pair"]) -> PairLogps:
    """(sum_k w_k / pi_k)^-1 of both answers, the weighted harmonic mean in MRPO's closed form (2405.16388)."""
    chosen = torch.stack([reference.chosen for reference in references])
    rejected = torch.stack([reference.rejected for reference in references])
    return PairLogps(-torch.logsumexp(weights.log() - chosen, 0), -torch.logsumexp(weights.log() - rejected, 0))


def adaptive_weights(references: Sequence[PairLogps]) -> Float[Tensor, "reference pair"]:
    """ARWC: weights proportional to the absolute log-ratio of a pair's answers; they sum to 1 over references."""
    apart = torch.stack([(reference.chosen - reference.rejected).abs() for reference in references]) + SMALLEST
    return apart / apart.sum(0)


def uniform_weights(references: Sequence[PairLogps]) -> Float[Tensor, "reference pair"]:
    """Equal weights for all references."""
    return torch.stack([torch.ones_like(reference.chosen) for reference in references]) / len(references)


def clip_references(references: Sequence[PairLogps], eta: float, clip: str) -> list[PairLogps]:
    """CTRO: clip log-probs of all references to within a fraction epsilon of the primary one's.

    With "fixed", epsilon is `eta` for both answers; with "adaptive", `eta` is divided between them in proportion to
    their absolute log-probs, averaged over all references.
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
    """Clip to between (1 + epsilon) and (1 - epsilon) times a negative center."""
    return logps.clamp((1 + epsilon) * center, (1 - epsilon) * center)
