"""Direct preference optimization (DPO) and its variants.

Variants: mean log-probabilities, two rejected answers, IPO, hinge, noisy labels (conservative and robust DPO), and
dense DPO over correction spans. `table` lists what each needs.
"""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from sightline.losses.types import LossOut, PairLogps


def dpo(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossOut:
    """DPO loss of each pair (Rafailov et al. 2023, 2305.18290, Eq. 7; 2407.02477, Eq. 3).

    `beta` > 0 is the strength of the KL penalty towards the reference. The rewards are `beta * log(policy / reference)`
    (Rafailov, Eq. 5 without the term that depends only on the prompt), detached; all outputs have shape "pair".
    """
    chosen_ratio = policy.chosen - reference.chosen  # log pi(y+|x) / ref(y+|x)
    rejected_ratio = policy.rejected - reference.rejected  # log pi(y-|x) / ref(y-|x)
    loss = -logsigmoid(beta * (chosen_ratio - rejected_ratio))  # Eq. 7
    return LossOut(loss, *rewards(policy, reference, beta))


def normalized_dpo(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossOut:
    """DPO on mean instead of summed log-probs (Meng et al. 2024, 2405.14734, table 4, "length-normalized DPO")."""
    (chosen, rejected), (ref_chosen, ref_rejected) = policy.means(), reference.means()
    chosen_reward, rejected_reward = beta * (chosen - ref_chosen), beta * (rejected - ref_rejected)
    loss = -logsigmoid(chosen_reward - rejected_reward)
    return LossOut(loss, chosen_reward.detach(), rejected_reward.detach())


def rewards(
    policy: PairLogps, reference: PairLogps, beta: float
) -> tuple[Float[Tensor, "pair"], Float[Tensor, "pair"]]:
    """The implicit rewards of both answers, detached (Rafailov, Eq. 5, without the term that depends on the prompt)."""
    chosen, rejected = policy.chosen - reference.chosen, policy.rejected - reference.rejected
    return beta * chosen.detach(), beta * rejected.detach()


def averaged_dpo(policy: PairLogps, reference: PairLogps, *, beta: float, gamma: float) -> LossOut:
    """DPO averaged over two rejected answers (2407.02477, Eq. 5, with gamma = 0.5 there).

    `gamma` is the weight of the first rejected answer; 1 is DPO on it alone. The rejected reward is the mean of both
    with the same weights.
    """
    chosen = beta * (policy.chosen - reference.chosen)
    first = beta * (policy.rejected - reference.rejected)
    second = beta * (policy.field("second_rejected") - reference.field("second_rejected"))
    loss = -gamma * logsigmoid(chosen - first) - (1 - gamma) * logsigmoid(chosen - second)  # Eq. 5
    return LossOut(loss, chosen.detach(), (gamma * first + (1 - gamma) * second).detach())


def ipo(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossOut:
    """IPO loss of each pair (Azar et al. 2023, 2310.12036, Eq. 17, whose tau is `beta`), on summed log-probs.

    TRL first divides log-probs by the answers' lengths; the paper and this function do not.
    """
    out = rewards(policy, reference, beta)
    margin = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)  # h
    return LossOut((margin - 1 / (2 * beta)) ** 2, *out)  # Eq. 17


def hinge(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossOut:
    """SLiC as a hinge on the log-ratios (Zhao et al. 2023, 2305.10425; this form: Tang et al. 2024, 2402.05749)."""
    out = rewards(policy, reference, beta)
    margin = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)
    return LossOut(relu(1 - beta * margin), *out)  # max(0, 1 - beta h)


def conservative_dpo(policy: PairLogps, reference: PairLogps, *, beta: float, epsilon: float) -> LossOut:
    """Cross-entropy with smoothed labels (Mitchell 2023, "A note on DPO with noisy preferences", Eq. 3)."""
    logits = beta * ((policy.chosen - reference.chosen) - (policy.rejected - reference.rejected))
    loss = -(1 - epsilon) * logsigmoid(logits) - epsilon * logsigmoid(-logits)
    return LossOut(loss, *rewards(policy, reference, beta))


def robust_dpo(policy: PairLogps, reference: PairLogps, *, beta: float, epsilon: float) -> LossOut:
    """Unbiased estimate of DPO's loss under flipped labels (Chowdhury et al. 2024, 2403.00409, Eq. 12)."""
    logits = beta * ((policy.chosen - reference.chosen) - (policy.rejected - reference.rejected))
    loss = (-(1 - epsilon) * logsigmoid(logits) + epsilon * logsigmoid(-logits)) / (1 - 2 * epsilon)
    return LossOut(loss, *rewards(policy, reference, beta))


def dense_dpo(policy: PairLogps, reference: PairLogps, *, beta: float, gamma: float) -> LossOut:
    """DPO on weighted means of token log-probs (Yu et al. 2023, 2312.00849, dense DPO).

    `gamma` is the weight of a changed token, 1 that of an unchanged one; the paper has gamma 5 and beta 0.5. With gamma
    1, or without changed tokens, it is DPO on means. Policy and reference have the same weights, as spans belong to the
    pair.
    """
    chosen = beta * (dense_chosen(policy, gamma) - dense_chosen(reference, gamma))
    rejected = beta * (dense_rejected(policy, gamma) - dense_rejected(reference, gamma))
    return LossOut(-logsigmoid(chosen - rejected), chosen.detach(), rejected.detach())


def dense_chosen(logps: PairLogps, gamma: float) -> Float[Tensor, "pair"]:
    """The weighted mean log-prob of the chosen answer's tokens."""
    tokens, changed_tokens = logps.field("chosen_tokens"), logps.field("chosen_changed_tokens")
    return _weighted_mean(logps.chosen, logps.field("chosen_changed"), tokens, changed_tokens, gamma)


def dense_rejected(logps: PairLogps, gamma: float) -> Float[Tensor, "pair"]:
    """The weighted mean log-prob of the rejected answer's tokens."""
    tokens, changed_tokens = logps.field("rejected_tokens"), logps.field("rejected_changed_tokens")
    return _weighted_mean(logps.rejected, logps.field("rejected_changed"), tokens, changed_tokens, gamma)


def _weighted_mean(
    whole: Float[Tensor, "pair"],
    changed: Float[Tensor, "pair"],
    tokens: Int[Tensor, "pair"],
    changed_tokens: Int[Tensor, "pair"],
    gamma: float,
) -> Float[Tensor, "pair"]:
    """(sum over unchanged + gamma * sum over changed) / (number unchanged + gamma * number changed)."""
    weights = tokens + (gamma - 1) * changed_tokens.to(whole.dtype)
    return (whole + (gamma - 1) * changed) / weights
