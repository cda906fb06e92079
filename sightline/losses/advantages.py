"""Advantages: how much better a rollout, or a token of it, was than expected.

Pure functions of rewards and values without gradient; where rewards come from is a judge's affair. What is done with
an advantage is `policy_gradient`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

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
