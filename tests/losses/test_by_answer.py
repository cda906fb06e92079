"""KTO and BCO, the losses of single answers."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.losses.dpo import dpo
from sightline.losses.kto import bco, divergence, kto, unshifted_bco
from sightline.losses.objective import Term, make_objective
from sightline.losses.types import PairLogps, Requirement
from tests.losses.example_pairs import column, log_sigmoid, logps, sigmoid

logp = st.floats(-12.0, -0.1)
four = st.tuples(logp, logp, logp, logp)


def pair(chosen: float, rejected: float, mismatched: float = -9.0) -> PairLogps:
    return logps({"chosen": chosen, "rejected": rejected, "mismatched": mismatched})


def test_kto_worked_by_hand() -> None:
    """beta 0.5, weights 1 and 2; log ratios 2 and -2, of the mismatched answer 1 = z0.

    Chosen: 1 - sigma(0.5 * (2 - 1)) = sigma(-0.5) = 0.3775407; rejected: 2 * sigma(-0.5 * (1 + 2)) = 2 * sigma(-1.5)
    = 2 * 0.1824255; half their sum is (0.3775407 + 0.3648510) / 2 = 0.3711959.
    """
    out = kto(pair(-4, -5, -9), pair(-6, -3, -10), beta=0.5, chosen_weight=1.0, rejected_weight=2.0)
    assert out.loss.item() == pytest.approx(0.3711958655)
    assert (out.chosen_reward.item(), out.rejected_reward.item()) == (1.0, -1.0)


@settings(max_examples=25)
@given(four, st.tuples(logp, logp))
def test_kto_is_the_printed_formula(values: tuple[float, ...], mismatched: tuple[float, float]) -> None:
    """lambda - v with v = lambda_D sigma(beta (r - z0)) or lambda_U sigma(beta (z0 - r)), z0 = max(0, mean of r')."""
    chosen, rejected, ref_chosen, ref_rejected = values
    z0 = max(0.0, mismatched[0] - mismatched[1])
    desirable = 1.5 - 1.5 * sigmoid(0.2 * (chosen - ref_chosen - z0))
    undesirable = 0.5 - 0.5 * sigmoid(0.2 * (z0 - (rejected - ref_rejected)))
    policy, reference = pair(chosen, rejected, mismatched[0]), pair(ref_chosen, ref_rejected, mismatched[1])
    found = kto(policy, reference, beta=0.2, chosen_weight=1.5, rejected_weight=0.5)
    assert found.loss.item() == pytest.approx((desirable + undesirable) / 2, abs=1e-12)


def test_at_the_reference_kto_is_half_its_mean_weight() -> None:
    out = kto(pair(-4, -5), pair(-4, -5), beta=0.5, chosen_weight=1.0, rejected_weight=3.0)
    assert out.loss.item() == pytest.approx(1.0)


def test_the_divergence_is_the_step_s_and_never_below_zero() -> None:
    """Log ratios 3 and -1: mean 1. Turned round: 0. It has no gradient."""
    policy = PairLogps(column(0, 0), column(0, 0), mismatched=column(-1, -6, grad=True))
    reference = PairLogps(column(0, 0), column(0, 0), mismatched=column(-4, -5))
    assert divergence(policy, reference).item() == 1.0 and not divergence(policy, reference).requires_grad
    assert divergence(reference, policy).item() == 0.0
    means = dataclasses.replace(policy, mismatched=policy.field("mismatched").mean().expand(2))
    assert divergence(means, reference).item() == 1.0  # a batch that is given the step's mean agrees with the step


def test_bco_worked_by_hand() -> None:
    """beta 0.5, rewards 1 and -1, shift 0.25: log(1 + e^-0.75) + log(1 + e^-1.25) = 0.3868711 + 0.2519291 = 0.6388002.

    The level is (1 - 1) / 2 = 0. Without a shift: 2 log(1 + e^-1) = 0.6265234.
    """
    out = bco(pair(-4, -5), pair(-6, -3), beta=0.5, shift=0.25)
    assert out.loss.item() == pytest.approx(0.6388001812)
    assert out.level is not None and out.level.item() == 0.0
    lifted = bco(pair(-4, -5), pair(-6, -7), beta=0.5, shift=0.25)  # rewards 1 and 1
    assert lifted.level is not None and lifted.level.item() == 1.0
    unshifted = unshifted_bco(pair(-4, -5), pair(-6, -3), beta=0.5)
    assert unshifted.loss.item() == pytest.approx(0.6265233750) and unshifted.level is None


@settings(max_examples=25)
@given(four, st.floats(-2.0, 2.0))
def test_bco_is_the_printed_formula_and_its_mirror(values: tuple[float, ...], shift: float) -> None:
    """Swapping the answers mirrors rewards at the shift: loss(b, a) - loss(a, b) = r_a - r_b, as for DPO."""
    chosen, rejected, ref_chosen, ref_rejected = values
    rewards = 0.2 * (chosen - ref_chosen), 0.2 * (rejected - ref_rejected)
    wanted = -log_sigmoid(rewards[0] - shift) - log_sigmoid(-(rewards[1] - shift))
    found = bco(pair(chosen, rejected), pair(ref_chosen, ref_rejected), beta=0.2, shift=shift)
    turned = bco(pair(rejected, chosen), pair(ref_rejected, ref_chosen), beta=0.2, shift=shift)
    assert found.loss.item() == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    assert (turned.loss - found.loss).item() == pytest.approx(rewards[0] - rewards[1], abs=1e-9)


@settings(max_examples=25)
@given(four)
def test_bco_bounds_dpo_from_above(values: tuple[float, ...]) -> None:
    """BCO's theorem: log(1 + e^(b - a)) < log(1 + e^-a) + log(1 + e^b), whatever the shift."""
    policy, reference = pair(*values[:2]), pair(*values[2:])
    bound = bco(policy, reference, beta=0.2, shift=0.7).loss
    assert (dpo(policy, reference, beta=0.2).loss < bound).all()


def test_mpo_worked_by_hand() -> None:
    """0.8 DPO + 0.2 BCO + supervised tuning on 4 tokens, beta 0.5, shift 0.25, the pair of the tests above.

    0.8 * 0.1269280110 + 0.2 * 0.6388001812 + 4 / 4 = 0.1015424 + 0.1277600 + 1 = 1.2293024.
    """
    terms = [Term("dpo", 0.8, {"beta": 0.5}), Term("bco", 0.2, {"beta": 0.5}), Term("sft", 1.0)]
    objective = make_objective(terms)
    out = objective(pair(-4, -5), [pair(-6, -3)], shift=0.25)
    assert (
        objective.needs == {Requirement.REFERENCE, Requirement.SHIFT}
        and out.level is not None
        and out.level.item() == 0.0
    )
    assert out.loss.item() == pytest.approx(1.2293024450)
    assert (out.chosen_reward.item(), out.rejected_reward.item()) == (1.0, -1.0)


def test_at_the_reference_bco_is_twice_log_two() -> None:
    assert unshifted_bco(pair(-4, -5), pair(-4, -5), beta=0.5).loss.item() == pytest.approx(2 * math.log(2))
