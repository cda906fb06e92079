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


# Added to a group's deviation, as TRL does: a judge's noise in the last digits must not be blown up to full size.
DEVIATION_FLOOR = 1e-4


def leave_one_out(
    rewards: Float[Tensor, "prompt answer"], scored: Bool[Tensor, "prompt answer"] | None = None
) -> Float[Tensor, "prompt answer"]:
    """RLOO: each reward minus the mean of the prompt's other rewards (Ahmadian et al. 2024, 2402.14740).

    An answer that is not `scored` takes no part: its advantage is 0, whatever stands in its place, and so is that of
    an answer with no scored sibling to compare it with.
    """
    known = torch.ones_like(rewards, dtype=torch.bool) if scored is None else scored
    kept = rewards.masked_fill(~known, 0.0)
    others = known.sum(1, keepdim=True) - 1
    baseline = (kept.sum(1, keepdim=True) - kept) / others.clamp(min=1)  # 1 / (k - 1) * sum over j != i
    return (kept - baseline).masked_fill(~known | (others < 1), 0.0)


def group_relative(
    rewards: Float[Tensor, "prompt answer"],
    scored: Bool[Tensor, "prompt answer"] | None = None,
    *,
    divide_by_deviation: bool,
) -> Float[Tensor, "prompt answer"]:
    """GRPO: each reward minus its prompt's mean, over its deviation (Shao et al. 2024, 2402.03300, sec. 4.1.2).

    Without the division it is that of Dr. GRPO (Liu et al. 2025, 2503.20783), which holds that the division favors
    prompts that are too easy or too hard. The deviation is that of a sample (n - 1). Answers that are not `scored`,
    and those alone in their prompt, have the advantage 0.
    """
    known = torch.ones_like(rewards, dtype=torch.bool) if scored is None else scored
    kept = rewards.masked_fill(~known, 0.0)
    count = known.sum(1, keepdim=True)
    mean = kept.sum(1, keepdim=True) / count.clamp(min=1)
    centered = (kept - mean).masked_fill(~known | (count < 2), 0.0)
    if not divide_by_deviation:
        return centered
    deviation = (centered.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return centered / (deviation + DEVIATION_FLOOR)


def generalized_advantages(
    rewards: Float[Tensor, "row token"],
    values: Float[Tensor, "row token"],
    mask: Bool[Tensor, "row token"],
    *,
    discount: float,
    trace: float,
) -> tuple[Float[Tensor, "row token"], Float[Tensor, "row token"]]:
    """GAE and the returns that a value head learns (Schulman et al. 2016, 1506.02438, Eq. 16).

    `values[:, t]` is the value before token t; after a row's last token it is 0. `mask` is True on a row's tokens,
    which come before its padding; outside it both results are 0. `discount` is gamma and `trace` lambda: 1 and 1 make
    the advantage the sum of rewards to come minus the value.
    """
    advantage, following = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    columns = []
    for token in reversed(range(rewards.shape[1])):
        inside = mask[:, token].to(values.dtype)
        delta = rewards[:, token] + discount * following - values[:, token]  # of one step
        advantage = inside * (delta + discount * trace * advantage)  # Eq. 16
        following = inside * values[:, token]
        columns.append(advantage)
    advantages = torch.stack(columns[::-1], 1).detach()
    return advantages, torch.where(mask, advantages + values.detach(), 0.0)


def rewards_by_token(
    scores: Float[Tensor, "row"], penalties: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"], *, beta: float
) -> Float[Tensor, "row token"]:
    """A score on each row's last token, and `beta` times a penalty, such as `k1`, off every token.

    Stiennon et al. 2020, 2009.01325, sec. 3.4, by token. Rows have at least one token; outside `mask` the result is 0.
    """
    rewards = torch.where(mask, -beta * penalties, 0.0)
    last = mask.sum(1) - 1
    return rewards.scatter_add(1, last[:, None], scores[:, None])


def whiten(values: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"]) -> Float[Tensor, "row token"]:
    """Mean 0 and deviation 1 over the tokens inside the mask, as PPO's implementations do; 0 outside it."""
    inside = values[mask]
    if inside.numel() < 2:
        return torch.zeros_like(values)
    return torch.where(mask, (values - inside.mean()) / (inside.std() + DEVIATION_FLOOR), 0.0)
