"""Policy gradients: losses whose gradient moves a policy towards tokens with an advantage, and what keeps it in place.

Pure functions by token, one row a rollout; no sampling, no reward and no reduction over rows. The advantages come from
`advantages`; the preference losses are apart, in `dpo` and its neighbors.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def reinforce(
    logps: Float[Tensor, "row token"], advantages: Float[Tensor, "row"], mask: Bool[Tensor, "row token"]
) -> Float[Tensor, "row"]:
    """-A log pi(y|x) of each row, whose gradient is REINFORCE's (Williams 1992; with RLOO: 2402.14740)."""
    return -advantages.detach() * row_sums(logps, mask)


def clipped_surrogate(
    logps: Float[Tensor, "*shape"],
    old_logps: Float[Tensor, "*shape"],
    advantages: Float[Tensor, "*shape"],
    *,
    low: float,
    high: float,
) -> tuple[Float[Tensor, "*shape"], Bool[Tensor, "*shape"]]:
    """PPO's loss (Schulman et al. 2017, 1707.06347, Eq. 7) and where the clipping has stopped the gradient.

    The ratio of the new to the old probability counts between 1 - `low` and 1 + `high`; the paper has one epsilon for
    both. By token, or by row with log-probs summed over rows.
    """
    ratio = (logps - old_logps.detach()).exp()
    fixed = advantages.detach()
    free, clipped = ratio * fixed, ratio.clamp(1 - low, 1 + high) * fixed
    return -torch.minimum(free, clipped), clipped.detach() < free.detach()


def clipped_value_loss(
    values: Float[Tensor, "*shape"],
    old_values: Float[Tensor, "*shape"],
    returns: Float[Tensor, "*shape"],
    *,
    clip: float,
) -> Float[Tensor, "*shape"]:
    """Half the squared error of the value, the worse of the free and that kept within `clip` of the old value.

    OpenAI's PPO2 has it so; the paper's own loss is the free one (1707.06347, Eq. 9), `clip` infinite.
    """
    near = old_values.detach() + (values - old_values.detach()).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns.detach()).square(), (near - returns.detach()).square())


def k1(logps: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(pi / ref) of drawn tokens: an estimate of KL(pi || ref) without bias that may be below 0.

    Schulman 2020, "Approximating KL divergence". As a penalty in the reward it gives the gradient of the KL; as a
    loss of its own its gradient is 0 on average; `k3` has one, that of KL(ref || pi).
    """
    return logps - reference


def k3(logps: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """As `k1`, by ref / pi - 1 - log(ref / pi): never below 0, less variance (Schulman 2020; 2402.03300, Eq. 4).

    Its value estimates KL(pi || ref). As a loss of its own, on tokens drawn from pi, its gradient is on average that of
    the other one, KL(ref || pi), which GRPO takes.
    """
    difference = reference - logps
    return difference.expm1() - difference


def row_sums(values: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"]) -> Float[Tensor, "row"]:
    """The sum over each row's tokens inside the mask."""
    return torch.where(mask, values, 0.0).sum(1)


def row_means(values: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"]) -> Float[Tensor, "row"]:
    """The mean over each row's tokens inside the mask, as in GRPO (2402.03300, Eq. 3); 0 in a row without any."""
    return row_sums(values, mask) / mask.sum(1).clamp(min=1)
