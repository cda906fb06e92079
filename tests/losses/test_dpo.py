"""DPO against sums worked by hand, a slow float64 reference, and the symmetries that the equation has."""

import math
from decimal import Decimal, getcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.losses.dpo import dpo
from sightline.losses.types import PairLogps

logp = st.floats(-200.0, 0.0, allow_nan=False)
quadruple = st.tuples(logp, logp, logp, logp)


def pair_logps(chosen: list[float], rejected: list[float], *, grad: bool = False) -> PairLogps:
    columns = [torch.tensor(values, dtype=torch.float64, requires_grad=grad) for values in (chosen, rejected)]
    return PairLogps(*columns)


def slow_dpo(
    policy_chosen: float, policy_rejected: float, ref_chosen: float, ref_rejected: float, beta: float
) -> float:
    """The printed form of 2407.02477 Eq. 3, with the four probabilities themselves, in 400-digit arithmetic."""
    getcontext().prec = 400
    numerator = Decimal(policy_chosen).exp() * Decimal(ref_rejected).exp()
    denominator = Decimal(ref_chosen).exp() * Decimal(policy_rejected).exp()
    exponent = Decimal(beta) * (numerator / denominator).ln()
    return float((1 + (-exponent).exp()).ln())


def test_value_worked_by_hand() -> None:
    """beta 0.5, policy (-4, -5), reference (-6, -3).

    log ratios: chosen -4 - -6 = 2, rejected -5 - -3 = -2; margin 4; beta * margin = 2.
    loss = -log sigma(2) = log(1 + e^-2) = log(1.1353352832) = 0.1269280110.
    rewards: 0.5 * 2 = 1 and 0.5 * -2 = -1.
    Second pair, the answers swapped: loss = log(1 + e^2) = log(8.3890560989) = 2.1269280110, rewards -1 and 1.
    """
    out = dpo(pair_logps([-4.0, -5.0], [-5.0, -4.0]), pair_logps([-6.0, -3.0], [-3.0, -6.0]), beta=0.5)
    assert out.loss.tolist() == pytest.approx([0.1269280110, 2.1269280110], abs=1e-10)
    assert out.chosen_reward.tolist() == [1.0, -1.0]
    assert out.rejected_reward.tolist() == [-1.0, 1.0]


def test_gradient_worked_by_hand() -> None:
    """Same pair: d loss / d chosen = -beta * sigma(-2) = -0.5 * 0.1192029220 = -0.0596014610; rejected the opposite.

    The gradient raises the chosen answer and lowers the rejected one; the reference gets the mirror image.
    """
    policy, reference = pair_logps([-4.0], [-5.0], grad=True), pair_logps([-6.0], [-3.0], grad=True)
    dpo(policy, reference, beta=0.5).loss.sum().backward()
    gradients = [
        t.grad.item()
        for t in (policy.chosen, policy.rejected, reference.chosen, reference.rejected)
        if t.grad is not None
    ]
    assert gradients == pytest.approx([-0.0596014610, 0.0596014610, 0.0596014610, -0.0596014610], abs=1e-10)


def test_rewards_carry_no_gradient() -> None:
    out = dpo(pair_logps([-4.0], [-5.0], grad=True), pair_logps([-6.0], [-3.0]), beta=0.5)
    assert out.loss.requires_grad and not out.chosen_reward.requires_grad and not out.rejected_reward.requires_grad


@given(logp, logp, st.floats(0.01, 2.0))
def test_log_two_where_policy_is_reference(chosen: float, rejected: float, beta: float) -> None:
    out = dpo(pair_logps([chosen], [rejected]), pair_logps([chosen], [rejected]), beta=beta)
    assert out.loss.item() == pytest.approx(math.log(2), abs=1e-15)
    assert out.chosen_reward.item() == 0.0 and out.rejected_reward.item() == 0.0


@settings(max_examples=50)
@given(quadruple, st.floats(0.01, 2.0))
def test_equals_the_slow_reference(values: tuple[float, float, float, float], beta: float) -> None:
    policy_chosen, policy_rejected, ref_chosen, ref_rejected = values
    out = dpo(pair_logps([policy_chosen], [policy_rejected]), pair_logps([ref_chosen], [ref_rejected]), beta=beta)
    assert out.loss.item() == pytest.approx(slow_dpo(*values, beta), rel=1e-12, abs=1e-12)


@given(quadruple, st.floats(0.01, 2.0))
def test_swapping_the_answers_adds_the_scaled_margin(values: tuple[float, float, float, float], beta: float) -> None:
    """log(1 + e^z) = log(1 + e^-z) + z, so loss(b, a) - loss(a, b) = beta * margin; the rewards change places."""
    policy_chosen, policy_rejected, ref_chosen, ref_rejected = values
    there = dpo(pair_logps([policy_chosen], [policy_rejected]), pair_logps([ref_chosen], [ref_rejected]), beta=beta)
    back = dpo(pair_logps([policy_rejected], [policy_chosen]), pair_logps([ref_rejected], [ref_chosen]), beta=beta)
    margin = beta * ((policy_chosen - ref_chosen) - (policy_rejected - ref_rejected))
    assert back.loss.item() - there.loss.item() == pytest.approx(margin, abs=1e-9)
    assert back.chosen_reward.item() == there.rejected_reward.item()
    assert there.chosen_reward.item() - there.rejected_reward.item() == pytest.approx(margin, abs=1e-9)


def test_stays_finite_where_a_naive_form_overflows() -> None:
    """z = -2000: log(1 + e^2000) is 2000 to the last digit, though e^2000 does not fit a float."""
    out = dpo(pair_logps([-2000.0], [0.0]), pair_logps([0.0], [0.0]), beta=1.0)
    assert out.loss.item() == 2000.0


def test_pairs_do_not_mix() -> None:
    together = dpo(pair_logps([-4.0, -9.0], [-5.0, -2.0]), pair_logps([-6.0, -8.0], [-3.0, -1.0]), beta=0.3).loss
    first = dpo(pair_logps([-4.0], [-5.0]), pair_logps([-6.0], [-3.0]), beta=0.3).loss
    second = dpo(pair_logps([-9.0], [-2.0]), pair_logps([-8.0], [-1.0]), beta=0.3).loss
    assert together.tolist() == [first.item(), second.item()]
