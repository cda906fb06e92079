"""Losses with a corrupted image or none: mDPO and its terms, and V-DPO."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.losses.dpo import dpo
from sightline.losses.mdpo import anchored, conditional, mdpo, vdpo
from sightline.losses.objective import Term, make_objective
from sightline.losses.types import PairLogps
from tests.losses.example_pairs import log_sigmoid, logps

logp = st.floats(-12.0, -0.1)
four = st.tuples(logp, logp, logp, logp)


def weakened(chosen: float, rejected: float, weak: float) -> PairLogps:
    return logps({"chosen": chosen, "rejected": rejected, "weakened_chosen": weak})


def blind(chosen: float, rejected: float, blind_chosen: float, blind_rejected: float) -> PairLogps:
    names = ("chosen", "rejected", "blind_chosen", "blind_rejected")
    return logps(dict(zip(names, (chosen, rejected, blind_chosen, blind_rejected), strict=True)))


def test_mdpo_worked_by_hand() -> None:
    """beta 0.5; log ratios 2 (chosen), -2 (rejected), 1 (weakened): rewards 1, -1, 0.5.

    DPO log(1 + e^-2) = 0.1269280; conditional log(1 + e^-0.5) = 0.4740770; anchored log(1 + e^-1) = 0.3132617.
    """
    policy, reference = weakened(-4, -5, -7), weakened(-6, -3, -8)
    parts = 0.1269280110, 0.4740769841, 0.3132616875
    assert mdpo(policy, reference, beta=0.5).loss.item() == pytest.approx(sum(parts))
    out = conditional(policy, reference, beta=0.5)
    assert out.loss.item() == pytest.approx(parts[1])
    assert (out.chosen_reward.item(), out.rejected_reward.item()) == (1.0, 0.5)
    assert anchored(policy, reference, beta=0.5, delta=0.0).loss.item() == pytest.approx(parts[2])
    assert anchored(policy, reference, beta=0.5, delta=1.0).loss.item() == pytest.approx(math.log(2))


def test_mdpo_is_the_sum_of_its_terms_as_an_objective() -> None:
    policy, reference = weakened(-4, -5, -7), weakened(-6, -3, -8)
    beta = {"beta": 0.5}
    terms = [
        Term("dpo", 1.0, beta),
        Term("mdpo-conditional", 1.0, beta),
        Term("mdpo-anchored", 1.0, {**beta, "delta": 0.0}),
    ]
    summed, whole = make_objective(terms), make_objective([Term("mdpo", parameters=beta)])
    one, other = summed(policy, [reference]), whole(policy, [reference])
    assert one.loss.item() == pytest.approx(other.loss.item()) and summed.needs == whole.needs
    assert one.rejected_reward.equal(other.rejected_reward)


@settings(max_examples=25)
@given(st.tuples(logp, logp, logp), st.tuples(logp, logp, logp))
def test_mdpo_is_the_printed_formula(policy: tuple[float, ...], reference: tuple[float, ...]) -> None:
    chosen, rejected, weak = (p - r for p, r in zip(policy, reference, strict=True))
    wanted = -log_sigmoid(0.3 * (chosen - rejected)) - log_sigmoid(0.3 * (chosen - weak)) - log_sigmoid(0.3 * chosen)
    found = mdpo(weakened(*policy), weakened(*reference), beta=0.3).loss.item()
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_at_the_reference_mdpo_is_three_times_log_two() -> None:
    same = weakened(-4, -5, -7)
    assert mdpo(same, same, beta=0.5).loss.item() == pytest.approx(3 * math.log(2))


def test_vdpo_worked_by_hand() -> None:
    """beta 0.5, gamma 1.5; policy (-4, -5), blind (-6, -5); reference (-6, -3), blind (-6, -4).

    Guided by the policy: 1.5 * -4 + 0.5 * 6 = -3 and 1.5 * -5 + 0.5 * 5 = -5; margin (-3 + 6) - (-5 + 3) = 5;
    log(1 + e^-2.5) = 0.0788897. By the reference: -3 and 1.5 * -5 + 0.5 * 4 = -5.5; margin 5.5; log(1 + e^-2.75).
    """
    policy, reference = blind(-4, -5, -6, -5), blind(-6, -3, -6, -4)
    out = vdpo(policy, reference, beta=0.5, gamma=1.5, guide="policy")
    assert out.loss.item() == pytest.approx(0.0788897343)
    assert (out.chosen_reward.item(), out.rejected_reward.item()) == (1.0, -1.0)
    by_reference = vdpo(policy, reference, beta=0.5, gamma=1.5, guide="reference")
    assert by_reference.loss.item() == pytest.approx(math.log1p(math.exp(-2.75)))


@settings(max_examples=25)
@given(four, four, st.floats(1.0, 3.0))
def test_vdpo_is_the_printed_formula(policy: tuple[float, ...], reference: tuple[float, ...], gamma: float) -> None:
    """With probabilities: pi^gamma / blind^(gamma - 1) in the place of pi."""
    chosen, rejected, blind_chosen, blind_rejected = (math.exp(value) for value in policy)
    guided = chosen**gamma / blind_chosen ** (gamma - 1), rejected**gamma / blind_rejected ** (gamma - 1)
    ratios = [math.log(value / math.exp(ref)) for value, ref in zip(guided, reference[:2], strict=True)]
    found = vdpo(blind(*policy), blind(*reference), beta=0.3, gamma=gamma, guide="policy").loss.item()
    assert found == pytest.approx(-log_sigmoid(0.3 * (ratios[0] - ratios[1])), rel=1e-7, abs=1e-9)


@settings(max_examples=25)
@given(four, four)
def test_without_guidance_or_without_a_view_vdpo_is_dpo(
    policy: tuple[float, ...], reference: tuple[float, ...]
) -> None:
    """gamma 1 removes the guidance, and so does a policy that ignores its image."""
    one, other = blind(*policy), blind(*reference)
    wanted = dpo(one, other, beta=0.3).loss.item()
    assert vdpo(one, other, beta=0.3, gamma=1.0, guide="policy").loss.item() == pytest.approx(wanted, abs=1e-9)
    unseeing = blind(policy[0], policy[1], policy[0], policy[1])
    assert vdpo(unseeing, other, beta=0.3, gamma=2.5, guide="policy").loss.item() == pytest.approx(wanted, abs=1e-9)


def test_a_pair_that_the_language_decides_teaches_less() -> None:
    """The same pair, its chosen answer likely (-2) or unlikely (-10) without the image."""

    def slope(blind_chosen: float) -> float:
        policy = logps({"chosen": -4, "rejected": -5, "blind_chosen": blind_chosen, "blind_rejected": -5}, grad=True)
        vdpo(policy, blind(-4, -5, -4, -5), beta=0.5, gamma=1.5, guide="policy").loss.sum().backward()
        assert policy.chosen.grad is not None
        return policy.chosen.grad.item()

    assert slope(-2.0) < slope(-10.0) < 0
