"""Variants of DPO: values worked by hand, slow float64 forms, policy = reference, signs and symmetries."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sightline.losses.objective import Term, make_objective
from sightline.losses.types import LossOut, PairLogps

BETA, EPSILON, GAMMA, WEIGHT = 0.5, 0.1, 0.3, 0.2
PARAMETERS: dict[str, dict[str, float]] = {
    "dpo": {"beta": BETA},
    "dpo-normalized": {"beta": BETA},
    "dpo-conservative": {"beta": BETA, "epsilon": EPSILON},
    "dpo-robust": {"beta": BETA, "epsilon": EPSILON},
    "ipo": {"beta": BETA},
    "hinge": {"beta": BETA},
    "sft": {},
    "simpo": {"beta": BETA, "gamma": GAMMA},
    "orpo": {"odds_weight": WEIGHT},
}
Four = tuple[float, float, float, float]


def column(*values: float, grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def pair(chosen: float, rejected: float, tokens: tuple[int, int] = (4, 5), *, grad: bool = False) -> PairLogps:
    lengths = (torch.tensor([count]) for count in tokens)
    return PairLogps(column(chosen, grad=grad), column(rejected, grad=grad), *lengths)


def compute_loss(name: str, policy: PairLogps, reference: PairLogps) -> LossOut:
    return make_objective([Term(name, parameters=PARAMETERS[name])])(policy, [reference])


def value(name: str, four: Four, tokens: tuple[int, int] = (4, 5)) -> float:
    return compute_loss(name, pair(*four[:2], tokens), pair(*four[2:], tokens)).loss.item()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        # policy (-4, -5), reference (-6, -3), 4 and 5 tokens: log ratios 2 and -2, h = 4, beta h = 2
        ("dpo", 0.1269280110),  # log(1 + e^-2)
        # means: -1 - -1.5 = 0.5 and -1 - -0.6 = -0.4; 0.5 * 0.9 = 0.45; log(1 + e^-0.45)
        ("dpo-normalized", 0.4932487),
        ("dpo-conservative", 0.3269280110),  # 0.9 * 0.1269280110 + 0.1 * 2.1269280110
        ("dpo-robust", -0.1230719890),  # (0.9 * 0.1269280110 - 0.1 * 2.1269280110) / 0.8
        ("ipo", 9.0),  # (4 - 1 / (2 * 0.5))^2
        ("hinge", 0.0),  # max(0, 1 - 2)
        ("sft", 1.0),  # 4 / 4
        # 0.5 * -1 - 0.5 * -1 - 0.3 = -0.3; log(1 + e^0.3)
        ("simpo", 0.8543552),
        # both means -1: log odds ratio 0; 1 + 0.2 * log 2
        ("orpo", 1.1386294361),
    ],
)
def test_values_worked_by_hand(name: str, wanted: float) -> None:
    assert value(name, (-4.0, -5.0, -6.0, -3.0)) == pytest.approx(wanted, abs=1e-6)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


SLOW: dict[str, Callable[[Four, tuple[int, int]], float]] = {
    "dpo-normalized": lambda f, n: -math.log(sigmoid(BETA * ((f[0] - f[2]) / n[0] - (f[1] - f[3]) / n[1]))),
    "dpo-conservative": lambda f, n: (
        -(1 - EPSILON) * math.log(sigmoid(BETA * margin(f))) - EPSILON * math.log(1 - sigmoid(BETA * margin(f)))
    ),
    "dpo-robust": lambda f, n: (
        (-(1 - EPSILON) * math.log(sigmoid(BETA * margin(f))) + EPSILON * math.log(1 - sigmoid(BETA * margin(f))))
        / (1 - 2 * EPSILON)
    ),
    "ipo": lambda f, n: (margin(f) - 0.5 / BETA) ** 2,
    "hinge": lambda f, n: max(0.0, 1 - BETA * margin(f)),
    "sft": lambda f, n: -f[0] / n[0],
    "simpo": lambda f, n: -math.log(sigmoid(BETA * f[0] / n[0] - BETA * f[1] / n[1] - GAMMA)),
    "orpo": lambda f, n: -f[0] / n[0] - WEIGHT * math.log(sigmoid(math.log(odds(f[0] / n[0]) / odds(f[1] / n[1])))),
}


def margin(four: Four) -> float:
    return (four[0] - four[2]) - (four[1] - four[3])


def odds(logp: float) -> float:
    return math.exp(logp) / (1 - math.exp(logp))


logp = st.floats(-12.0, -0.1)
lengths = st.tuples(st.integers(1, 9), st.integers(1, 9))


@pytest.mark.parametrize("name", SLOW)
@given(four=st.tuples(logp, logp, logp, logp), tokens=lengths)
def test_the_printed_formula(name: str, four: Four, tokens: tuple[int, int]) -> None:
    assert value(name, four, tokens) == pytest.approx(SLOW[name](four, tokens), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("dpo-normalized", math.log(2)),
        ("dpo-conservative", math.log(2)),
        ("dpo-robust", math.log(2)),
        ("ipo", 1 / (2 * BETA) ** 2),
        ("hinge", 1.0),
    ],
)
def test_at_the_reference_the_value_is_known(name: str, wanted: float) -> None:
    out = compute_loss(name, pair(-7.0, -2.0), pair(-7.0, -2.0))
    assert out.loss.item() == pytest.approx(wanted)
    assert out.chosen_reward.item() == out.rejected_reward.item() == 0


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_chosen_answer_rises_and_the_rejected_one_falls(name: str) -> None:
    policy = pair(-6.0, -5.0, grad=True)
    compute_loss(name, policy, pair(-5.0, -5.5)).loss.sum().backward()
    assert policy.chosen.grad is not None and policy.chosen.grad.item() < 0
    if name == "sft":
        assert policy.rejected.grad is None or policy.rejected.grad.item() == 0
    else:
        assert policy.rejected.grad is not None and policy.rejected.grad.item() > 0


@pytest.mark.parametrize("name", ["dpo", "dpo-normalized"])
@given(four=st.tuples(logp, logp, logp, logp))
def test_a_pair_and_its_reverse_differ_by_the_margin(name: str, four: Four) -> None:
    """-log sigma(x) + log sigma(-x) = -x."""
    turned = (four[1], four[0], four[3], four[2])
    out = compute_loss(name, pair(*four[:2]), pair(*four[2:]))
    lead = (out.chosen_reward - out.rejected_reward).item()
    assert value(name, four) - value(name, turned, (5, 4)) == pytest.approx(-lead, abs=1e-7)


@given(four=st.tuples(logp, logp, logp, logp), epsilon=st.floats(0.01, 0.49))
def test_labels_that_are_right_by_a_share_average_to_the_conservative_loss(four: Four, epsilon: float) -> None:
    """Conservative DPO is the expected DPO loss under flips, robust DPO has DPO's as its expectation under them."""
    turned = (four[1], four[0], four[3], four[2])
    right, wrong = value("dpo", four), value("dpo", turned)
    both = {"beta": BETA, "epsilon": epsilon}
    smoothed = make_objective([Term("dpo-conservative", parameters=both)])(
        pair(*four[:2]), [pair(*four[2:])]
    ).loss.item()
    assert smoothed == pytest.approx((1 - epsilon) * right + epsilon * wrong, abs=1e-7)
    robust = make_objective([Term("dpo-robust", parameters=both)])
    seen = robust(pair(*four[:2]), [pair(*four[2:])]).loss.item()
    flipped = robust(pair(*turned[:2]), [pair(*turned[2:])]).loss.item()
    assert (1 - epsilon) * seen + epsilon * flipped == pytest.approx(right, abs=1e-6)


@pytest.mark.parametrize("name", PARAMETERS)
def test_rewards_carry_no_gradient(name: str) -> None:
    out = compute_loss(name, pair(-6.0, -5.0, grad=True), pair(-5.0, -5.5))
    assert not out.chosen_reward.requires_grad and not out.rejected_reward.requires_grad


@pytest.mark.parametrize("name", ["dpo-normalized", "sft", "simpo", "orpo"])
def test_means_need_lengths(name: str) -> None:
    bare = PairLogps(column(-1.0), column(-2.0))
    with pytest.raises(ValueError, match="needs chosen_tokens of the pairs"):
        compute_loss(name, bare, bare)


def test_certain_answers_have_finite_odds_and_gradients() -> None:
    policy = pair(-1e-9, -30.0, grad=True)
    out = compute_loss("orpo", policy, policy)
    out.loss.sum().backward()
    assert torch.isfinite(out.loss).all()
    assert policy.chosen.grad is not None and torch.isfinite(policy.chosen.grad).all()
