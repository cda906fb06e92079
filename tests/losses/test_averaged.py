"""Averaged DPO: a value worked by hand, gamma 0 and 1, and the printed formula."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.losses.dpo import averaged_dpo, dpo
from tests.losses.example_pairs import log_sigmoid, logps

logp = st.floats(-12.0, -0.1)
three = st.tuples(logp, logp, logp)


def pair(chosen: float, rejected: float, second: float) -> dict[str, float]:
    return {"chosen": chosen, "rejected": rejected, "second_rejected": second}


def test_value_worked_by_hand() -> None:
    """beta 0.5, gamma 0.25; policy (-4, -5, -6), reference (-6, -3, -6): log ratios 2, -2, 0, rewards 1, -1, 0.

    0.25 * log(1 + e^-2) + 0.75 * log(1 + e^-1) = 0.25 * 0.1269280 + 0.75 * 0.3132617 = 0.2666783.
    The rejected reward is 0.25 * -1 + 0.75 * 0 = -0.25.
    """
    out = averaged_dpo(logps(pair(-4, -5, -6)), logps(pair(-6, -3, -6)), beta=0.5, gamma=0.25)
    assert out.loss.item() == pytest.approx(0.2666782681)
    assert (out.chosen_reward.item(), out.rejected_reward.item()) == (1.0, -0.25)


@settings(max_examples=25)
@given(three, three, st.floats(0.0, 1.0))
def test_the_printed_formula(policy: tuple[float, ...], reference: tuple[float, ...], gamma: float) -> None:
    p, r = ([math.exp(value) for value in side] for side in (policy, reference))
    margins = [math.log(p[0] * r[k] / (r[0] * p[k])) for k in (1, 2)]
    wanted = -gamma * log_sigmoid(0.3 * margins[0]) - (1 - gamma) * log_sigmoid(0.3 * margins[1])
    found = averaged_dpo(logps(pair(*policy)), logps(pair(*reference)), beta=0.3, gamma=gamma)
    assert found.loss.item() == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@settings(max_examples=25)
@given(three, three, st.floats(0.0, 1.0))
def test_the_ends_are_dpo_and_the_rejected_answers_may_change_places(
    policy: tuple[float, float, float], reference: tuple[float, float, float], gamma: float
) -> None:
    one, other = logps(pair(*policy)), logps(pair(*reference))
    turned = [logps(pair(c, second, rejected)) for c, rejected, second in (policy, reference)]
    ends = [averaged_dpo(one, other, beta=0.3, gamma=end).loss.item() for end in (1.0, 0.0)]
    alone = [dpo(one, other, beta=0.3).loss.item(), dpo(*turned, beta=0.3).loss.item()]
    assert ends == pytest.approx(alone, abs=1e-12)
    swapped = averaged_dpo(*turned, beta=0.3, gamma=1 - gamma).loss.item()
    assert swapped == pytest.approx(averaged_dpo(one, other, beta=0.3, gamma=gamma).loss.item(), abs=1e-12)


def test_at_the_reference_it_is_log_two() -> None:
    same = logps(pair(-4, -5, -6))
    assert averaged_dpo(same, same, beta=0.5, gamma=0.5).loss.item() == pytest.approx(math.log(2))
