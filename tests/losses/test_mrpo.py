"""MRPO: values by hand, by probabilities, and by its authors' code; clipping and weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.errors import InputError
from sightline.losses.dpo import dpo
from sightline.losses.mrpo import adaptive_weights, clip_references, mrpo, multi_dpo, virtual_reference
from sightline.losses.types import PairLogps
from tests.losses.example_pairs import column, log_sigmoid, logps

logp = st.floats(-12.0, -0.5)
two = st.tuples(logp, logp)


def pair(chosen: float, rejected: float) -> PairLogps:
    return logps({"chosen": chosen, "rejected": rejected})


def test_the_virtual_reference_worked_by_hand() -> None:
    """Probabilities 1/2 and 1/8, weights 1/4 and 3/4: 1 / (0.25 * 2 + 0.75 * 8) = 1 / 6.5; equal ones stay."""
    references = [pair(math.log(1 / 2), -1.0), pair(math.log(1 / 8), -1.0)]
    found = virtual_reference(references, torch.tensor([[0.25], [0.75]]).double())
    assert found.chosen.item() == pytest.approx(math.log(1 / 6.5)) and found.rejected.item() == pytest.approx(-1.0)


def test_weights_worked_by_hand() -> None:
    """Log-ratios of the references of 1, 3 and 4 nats; if all are 0, the weights are equal."""
    shares = adaptive_weights([pair(-4, -5), pair(-6, -3), pair(-2, -6)])
    assert shares[:, 0].tolist() == pytest.approx([1 / 8, 3 / 8, 4 / 8], abs=1e-6)
    assert adaptive_weights([pair(-4, -4), pair(-6, -6)])[:, 0].tolist() == [0.5, 0.5]


def test_clipping_worked_by_hand() -> None:
    """eta 0.1; primary (-10, -20), other (-20, -20): sizes 15 and 20, s = 3/7, epsilon 0.3/7 and 0.4/7.

    -20 is brought to (1 + 0.3/7) * -10 = -10.4285714, and -20 is inside already; fixed: 1.1 * -10 = -11.
    A likelier one, (-1, -1): sizes 5.5 and 10.5, s = 11/32, up to (1 - 1.1/32) * -10 and (1 - 2.1/32) * -20.
    """
    primary = pair(-10, -20)
    first, near = clip_references([primary, pair(-20, -20)], 0.1, "adaptive")
    assert first is primary and near.chosen.item() == pytest.approx(-10 - 3 / 7) and near.rejected.item() == -20
    (_, fixed) = clip_references([primary, pair(-20, -20)], 0.1, "fixed")
    assert fixed.chosen.item() == pytest.approx(-11.0)
    (_, above) = clip_references([primary, pair(-1, -1)], 0.1, "adaptive")
    assert above.chosen.item() == pytest.approx(-10 + 11 / 32) and above.rejected.item() == pytest.approx(-20 + 42 / 32)


def slow(
    policy: tuple[float, float], references: list[tuple[float, float]], eta: float, clip: str, weights: str
) -> float:
    """beta 0.3; with probabilities, or for two references in the form of the authors' code."""
    apart = [abs(chosen - rejected) + 1e-6 for chosen, rejected in references]
    shares = [1 / len(references)] * len(references) if weights == "uniform" else [a / sum(apart) for a in apart]
    sizes = [abs(sum(r[side] for r in references) / len(references)) for side in (0, 1)]
    margin = 0.0
    for side, sign in ((0, 1), (1, -1)):
        epsilon = eta if clip == "fixed" else eta * sizes[side] / sum(sizes)
        center = references[0][side]
        near = [center, *(min(max(r[side], (1 + epsilon) * center), (1 - epsilon) * center) for r in references[1:])]
        if weights == "code":  # l1 + l2 - logsumexp(log a + l1, log(1 - a) + l2), 1 the extra and 2 the primary one
            l2, l1 = near
            together = shares[1] * math.exp(l1) + shares[0] * math.exp(l2)
            virtual = l1 + l2 - math.log(together)
        else:
            virtual = -math.log(sum(share / math.exp(value) for share, value in zip(shares, near, strict=True)))
        margin += sign * (policy[side] - virtual)
    return -log_sigmoid(0.3 * margin)


@pytest.mark.parametrize("weights", ["paper", "code", "uniform"])
@pytest.mark.parametrize("clip", ["adaptive", "fixed"])
@settings(max_examples=25)
@given(policy=two, references=st.lists(two, min_size=2, max_size=4), eta=st.floats(0.01, 0.9))
def test_the_printed_formula(
    policy: tuple[float, float], references: list[tuple[float, float]], eta: float, clip: str, weights: str
) -> None:
    if weights == "code":
        references = references[:2]
    found = mrpo(pair(*policy), [pair(*r) for r in references], beta=0.3, eta=eta, clip=clip, weights=weights)
    assert found.loss.item() == pytest.approx(slow(policy, references, eta, clip, weights), rel=1e-8, abs=1e-9)


def test_the_weights_of_paper_and_code_are_each_other_s_with_two_references() -> None:
    """They differ if the references differ, and agree if both have the same log-ratio."""

    def value(weights: str, other: PairLogps) -> float:
        return mrpo(pair(-4, -5), [pair(-6, -7), other], beta=0.3, eta=0.9, clip="fixed", weights=weights).loss.item()

    assert abs(value("paper", pair(-6.5, -9)) - value("code", pair(-6.5, -9))) > 1e-3
    assert value("paper", pair(-7, -8)) == pytest.approx(value("code", pair(-7, -8)))


@settings(max_examples=25)
@given(two, two, st.integers(2, 4))
def test_equal_references_are_one(policy: tuple[float, float], reference: tuple[float, float], count: int) -> None:
    references = [pair(*reference)] * count
    wanted = dpo(pair(*policy), pair(*reference), beta=0.3)
    for loss in (mrpo, multi_dpo):
        out = loss(pair(*policy), references, beta=0.3, eta=0.1, clip="adaptive", weights="paper")
        assert out.loss.item() == pytest.approx(wanted.loss.item(), abs=1e-9)
        assert out.chosen_reward.item() == pytest.approx(wanted.chosen_reward.item(), abs=1e-9)
        assert out.rejected_reward.item() == pytest.approx(wanted.rejected_reward.item(), abs=1e-9)


def test_the_baseline_averages_losses() -> None:
    """Uniform weights without effective clipping: half DPO against each reference."""
    policy, references = pair(-4, -5), [pair(-6, -3), pair(-5, -4)]
    wanted = [dpo(policy, reference, beta=0.5) for reference in references]
    out = multi_dpo(policy, references, beta=0.5, eta=0.99, clip="fixed", weights="uniform")
    assert out.loss.item() == pytest.approx(sum(o.loss.item() for o in wanted) / 2)
    assert out.chosen_reward.item() == pytest.approx(sum(o.chosen_reward.item() for o in wanted) / 2)


@settings(max_examples=25)
@given(two, st.lists(two, min_size=3, max_size=3))
def test_the_order_of_further_references_is_nothing(
    policy: tuple[float, float], refs: list[tuple[float, float]]
) -> None:
    first, second, third = (pair(*r) for r in refs)
    one, other = (
        mrpo(pair(*policy), order, beta=0.3, eta=0.2, clip="adaptive", weights="paper").loss.item()
        for order in ([first, second, third], [first, third, second])
    )
    assert one == pytest.approx(other, abs=1e-12)


def test_long_answers_do_not_underflow() -> None:
    """Probabilities of e^-900 are 0 in a float; the harmonic mean is within log 2 of the less likely one."""
    found = virtual_reference(
        [PairLogps(column(-900.0), column(-900.0)), PairLogps(column(-990.0), column(-900.0))],
        torch.tensor([[0.5], [0.5]]).double(),
    )
    assert found.chosen.item() == pytest.approx(-990 + math.log(2)) and found.rejected.item() == pytest.approx(-900)


def test_the_code_s_weights_with_three_references_are_refused() -> None:
    with pytest.raises(InputError, match=r"loss.weights is 'code' with 3 references.*use 'paper'"):
        mrpo(pair(-4, -5), [pair(-4, -5)] * 3, beta=0.3, eta=0.1, clip="fixed", weights="code")
