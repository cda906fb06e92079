"""Policy-gradient losses, KL estimates and advantages for reinforcement learning.

Pure functions of token log-probs with one row per rollout; no sampling, no reward model and no reduction over rows. The
preference losses are in `dpo`, `kto` and their neighbors.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def reinforce(
    logps: Float[Tensor, "row token"], advantages: Float[Tensor, "row"], mask: Bool[Tensor, "row token"]
) -> Float[Tensor, "row"]:
    """-A log pi(y|x) of each row, with REINFORCE's gradient (Williams 1992; with RLOO: 2402.14740)."""
    return -advantages.detach() * row_sums(logps, mask)


def clipped_surrogate(
    logps: Float[Tensor, "*shape"],
    old_logps: Float[Tensor, "*shape"],
    advantages: Float[Tensor, "*shape"],
    *,
    low: float,
    high: float,
) -> tuple[Float[Tensor, "*shape"], Bool[Tensor, "*shape"]]:
    """PPO's loss (Schulman et al. 2017, 1707.06347, Eq. 7) and a mask of where clipping stops the gradient.

    The ratio of new to old probability is clipped to [1 - `low`, 1 + `high`]; the paper has one epsilon for both. Per
    token, or per row with log-probs summed over rows.
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
    """Half the squared error of the value, or of the value clipped to within `clip` of the old one if that is larger.

    As in OpenAI's PPO2; the paper's loss is not clipped (1707.06347, Eq. 9), which is an infinite `clip`.
    """
    near = old_values.detach() + (values - old_values.detach()).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns.detach()).square(), (near - returns.detach()).square())


def k1(logps: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log(pi / ref) of sampled tokens: an unbiased estimate of KL(pi || ref) that may be negative.

    Schulman 2020, "Approximating KL divergence". As a penalty in the reward it gives the gradient of the KL; as a
    separate loss its expected gradient is 0, while that of `k3` is the gradient of KL(ref || pi).
    """
    return logps - reference


def k3(logps: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """As `k1`, by ref / pi - 1 - log(ref / pi): non-negative, less variance (Schulman 2020; 2402.03300, Eq. 4).

    Its value estimates KL(pi || ref). As a separate loss on tokens sampled from pi, its expected gradient is that of
    the reverse direction, KL(ref || pi), which GRPO uses.
    """
    difference = reference - logps
    return difference.expm1() - difference


def row_sums(values: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"]) -> Float[Tensor, "row"]:
    """Sum each row over the tokens inside the mask."""
    return torch.where(mask, values, 0.0).sum(1)


def row_means(values: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"]) -> Float[Tensor, "row"]:
    """Average each row over the tokens inside the mask, as in GRPO (2402.03300, Eq. 3); 0 for a row without any."""
    return row_sums(values, mask) / mask.sum(1).clamp(min=1)


# Added to a group's standard deviation, as in TRL, so that a judge's noise in the last digits is not amplified.
DEVIATION_FLOOR = 1e-4


def leave_one_out(
    rewards: Float[Tensor, "prompt answer"], scored: Bool[Tensor, "prompt answer"] | None = None
) -> Float[Tensor, "prompt answer"]:
    """RLOO: each reward minus the mean of the prompt's other rewards (Ahmadian et al. 2024, 2402.14740).

    An answer that is not `scored` is ignored and has advantage 0, whatever its reward; so has an answer without another
    scored answer to the same prompt.
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

    Without the division it is that of Dr. GRPO (Liu et al. 2025, 2503.20783), which argues that the division favors
    prompts that are too easy or too hard. The standard deviation is that of a sample (n - 1). Answers that are not
    `scored`, and those without another one to the same prompt, have advantage 0.
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
    """GAE and the returns that a value head is trained on (Schulman et al. 2016, 1506.02438, Eq. 16).

    `values[:, t]` is the value before token t; after a row's last token it is 0. `mask` is True on a row's tokens,
    which precede its padding; outside it both results are 0. `discount` is gamma and `trace` lambda; with 1 and 1 the
    advantage is the sum of future rewards minus the value.
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
    """Token rewards: the score on each row's last token, minus `beta` times a penalty, such as `k1`, on every token.

    Stiennon et al. 2020, 2009.01325, sec. 3.4, per token. Rows have at least one token; outside `mask` the result is 0.
    """
    rewards = torch.where(mask, -beta * penalties, 0.0)
    last = mask.sum(1) - 1
    return rewards.scatter_add(1, last[:, None], scores[:, None])


def whiten(values: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"]) -> Float[Tensor, "row token"]:
    """Normalize to mean 0 and standard deviation 1 over the tokens inside the mask, as is usual in PPO; 0 outside."""
    inside = values[mask]
    if inside.numel() < 2:
        return torch.zeros_like(values)
    return torch.where(mask, (values - inside.mean()) / (inside.std() + DEVIATION_FLOOR), 0.0)
