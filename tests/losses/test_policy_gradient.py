"""Policy gradients and advantages: values worked by hand, slow loops, and gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sightline.losses.policy_gradient import (
    clipped_surrogate,
    clipped_value_loss,
    generalized_advantages,
    group_relative,
    k1,
    k3,
    leave_one_out,
    reinforce,
    rewards_by_token,
    row_means,
    whiten,
)

number = st.floats(-5.0, 5.0)


def table(*rows: list[float], grad: bool = False) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64, requires_grad=grad)


def masked(*lengths: int, width: int) -> Tensor:
    return torch.arange(width)[None] < torch.tensor(lengths)[:, None]


def test_leave_one_out_worked_by_hand() -> None:
    """Rewards 1, 2, 6: minus (2 + 6) / 2 = 4, (1 + 6) / 2 = 3.5, (1 + 2) / 2 = 1.5, so -3, -1.5, 4.5.

    Without the score of the second: 1 - 6 = -5, 0, 6 - 1 = 5; a single answer has advantage 0.
    """
    rewards = table([1.0, 2.0, 6.0])
    assert leave_one_out(rewards).tolist() == [[-3.0, -1.5, 4.5]]
    unscored = table([1.0, math.nan, 6.0], [3.0, math.nan, math.nan])
    assert leave_one_out(unscored, ~unscored.isnan()).tolist() == [[-5.0, 0.0, 5.0], [0.0, 0.0, 0.0]]


def test_group_relative_worked_by_hand() -> None:
    """Rewards 1, 2, 6: mean 3, so -2, -1, 3; deviation sqrt((4 + 1 + 9) / 2) = sqrt 7 = 2.6457513."""
    rewards = table([1.0, 2.0, 6.0])
    assert group_relative(rewards, divide_by_deviation=False).tolist() == [[-2.0, -1.0, 3.0]]
    divided = group_relative(rewards, divide_by_deviation=True)[0].tolist()
    assert divided == pytest.approx([value / (math.sqrt(7) + 1e-4) for value in (-2.0, -1.0, 3.0)])
    unscored = table([1.0, math.nan, 6.0], [math.nan, 2.0, math.nan])
    found = group_relative(unscored, ~unscored.isnan(), divide_by_deviation=False)
    assert found.tolist() == [[-2.5, 0.0, 2.5], [0.0, 0.0, 0.0]]


@given(st.lists(number, min_size=2, max_size=6), number)
def test_advantages_forget_a_constant_and_add_up_to_nothing(rewards: list[float], constant: float) -> None:
    """Both sum to 0, and leave-one-out is k / (k - 1) times the distance from the mean."""
    one, moved = table(rewards), table([reward + constant for reward in rewards])
    out, relative = leave_one_out(one), group_relative(one, divide_by_deviation=False)
    assert leave_one_out(moved).tolist()[0] == pytest.approx(out.tolist()[0], abs=1e-9)
    assert out.sum().item() == pytest.approx(0.0, abs=1e-9)
    assert (relative * len(rewards) / (len(rewards) - 1)).tolist()[0] == pytest.approx(out.tolist()[0], abs=1e-9)


def test_equal_rewards_teach_nothing() -> None:
    equal = table([2.0, 2.0, 2.0])
    assert group_relative(equal, divide_by_deviation=True).tolist() == [[0.0, 0.0, 0.0]]
    assert leave_one_out(equal).tolist() == [[0.0, 0.0, 0.0]]


def test_generalized_advantages_worked_by_hand() -> None:
    """discount 0.5, trace 0.5; rewards 1, 2 and values 3, 4, then padding.

    Last token: delta = 2 + 0 - 4 = -2, advantage -2, return -2 + 4 = 2.
    First: delta = 1 + 0.5 * 4 - 3 = 0, advantage 0 + 0.25 * -2 = -0.5, return -0.5 + 3 = 2.5.
    """
    found = generalized_advantages(
        table([1.0, 2.0, 9.0]), table([3.0, 4.0, 9.0]), masked(2, width=3), discount=0.5, trace=0.5
    )
    assert [column.tolist() for column in found] == [[[-0.5, -2.0, 0.0]], [[2.5, 2.0, 0.0]]]


@given(st.lists(st.tuples(number, number), min_size=1, max_size=5), st.floats(0.1, 1.0), st.floats(0.0, 1.0))
def test_generalized_advantages_equal_the_printed_sum(
    steps: list[tuple[float, float]], discount: float, trace: float
) -> None:
    """Eq. 16: the sum over l of (gamma lambda)^l delta_(t + l)."""
    rewards, values = [r for r, _ in steps], [v for _, v in steps]
    after = [*values[1:], 0.0]
    deltas = [r + discount * n - v for r, v, n in zip(rewards, values, after, strict=True)]
    wanted = [
        sum((discount * trace) ** (later - t) * deltas[later] for later in range(t, len(steps)))
        for t in range(len(steps))
    ]
    mask = masked(len(steps), width=len(steps))
    advantages, returns = generalized_advantages(table(rewards), table(values), mask, discount=discount, trace=trace)
    assert advantages[0].tolist() == pytest.approx(wanted, abs=1e-9)
    assert returns[0].tolist() == pytest.approx([a + v for a, v in zip(wanted, values, strict=True)], abs=1e-9)


def test_with_full_traces_the_advantage_is_what_is_yet_to_come() -> None:
    rewards, values, mask = table([1.0, 2.0, 4.0]), table([0.5, 0.5, 0.5]), masked(3, width=3)
    advantages, returns = generalized_advantages(rewards, values, mask, discount=1.0, trace=1.0)
    assert advantages.tolist() == [[6.5, 5.5, 3.5]] and returns.tolist() == [[7.0, 6.0, 4.0]]


def test_scores_stand_on_last_tokens_and_penalties_on_all() -> None:
    penalties = table([0.5, 1.0, 7.0], [1.0, -1.0, 2.0])
    found = rewards_by_token(torch.tensor([3.0, 4.0]).double(), penalties, masked(2, 3, width=3), beta=0.5)
    assert found.tolist() == [[-0.25, 2.5, 0.0], [-0.5, 0.5, 3.0]]


def test_whitening_counts_the_tokens_inside() -> None:
    """1, 2, 6 as above; one token alone has no deviation."""
    found = whiten(table([1.0, 2.0], [6.0, 99.0]), masked(2, 1, width=2))
    wanted = [[-2 / (math.sqrt(7) + 1e-4), -1 / (math.sqrt(7) + 1e-4)], [3 / (math.sqrt(7) + 1e-4), 0.0]]
    assert torch.allclose(found, table(*wanted))
    assert whiten(table([5.0]), masked(1, width=1)).tolist() == [[0.0]]


def test_reinforce_worked_by_hand() -> None:
    """Advantage 2, log-probs -1 and -3, then padding: loss 8, gradient -2 on each token and none on the padding."""
    logps = table([-1.0, -3.0, -7.0], grad=True)
    loss = reinforce(logps, torch.tensor([2.0]).double(), masked(2, width=3))
    loss.sum().backward()
    assert loss.tolist() == [8.0] and logps.grad is not None and logps.grad.tolist() == [[-2.0, -2.0, 0.0]]


def test_at_ratio_one_ppo_has_the_gradient_of_reinforce() -> None:
    logps, plain = table([-1.0, -3.0], grad=True), table([-1.0, -3.0], grad=True)
    loss, stopped = clipped_surrogate(logps, logps.detach(), table([2.0, 2.0]), low=0.2, high=0.2)
    loss.sum().backward()
    reinforce(plain, torch.tensor([2.0]).double(), masked(2, width=2)).sum().backward()
    assert logps.grad is not None and plain.grad is not None and torch.equal(logps.grad, plain.grad)
    assert loss.tolist() == [[-2.0, -2.0]] and not stopped.any()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.5, 2.0, -2.4, 0.0),  # -min(3, 1.2 * 2): as far up as it may go
        (1.5, -2.0, 3.0, 3.0),  # -min(-3, -2.4): a step in the wrong direction is taken back in full
        (0.5, 2.0, -1.0, -1.0),  # -min(1, 1.8)
        (0.5, -2.0, 1.8, 0.0),  # -min(-1, 0.9 * -2): as far down as it may go, 1 - low = 0.9
        (1.1, 2.0, -2.2, -2.2),  # inside; d loss / d logp = -ratio * advantage
    ],
)
def test_clipping_worked_by_hand(ratio: float, advantage: float, loss: float, slope: float) -> None:
    """low 0.1, high 0.2."""
    logps = table([math.log(ratio)], grad=True)
    out, stopped = clipped_surrogate(logps, table([0.0]), table([advantage]), low=0.1, high=0.2)
    out.sum().backward()
    assert out.item() == pytest.approx(loss) and stopped.item() is (slope == 0.0)
    assert logps.grad is not None and logps.grad.item() == pytest.approx(slope)


def test_value_loss_worked_by_hand() -> None:
    """Old value 1, clip 0.2, return 2. Value 1.5: max(0.5^2, (1.2 - 2)^2) / 2 = 0.32, no gradient: it went far enough.

    Value 0.5: max(1.5^2, (0.8 - 2)^2) / 2 = 1.125 with gradient -1.5. No clip: 0.5^2 / 2 = 0.125.
    """
    values = table([1.5, 0.5], grad=True)
    out = clipped_value_loss(values, table([1.0, 1.0]), table([2.0, 2.0]), clip=0.2)
    out.sum().backward()
    assert out[0].tolist() == pytest.approx([0.32, 1.125])
    assert values.grad is not None and values.grad.tolist() == [[0.0, -1.5]]
    free = clipped_value_loss(table([1.5]), table([1.0]), table([2.0]), clip=math.inf)
    assert free.item() == 0.125


def test_penalties_worked_by_hand() -> None:
    """pi = 0.5, ref = 0.25: k1 = log 2 = 0.6931472; k3 = 0.5 - 1 + log 2 = 0.1931472. Equal: 0 both."""
    policy, reference = table([math.log(0.5), -1.0]), table([math.log(0.25), -1.0])
    assert k1(policy, reference)[0].tolist() == pytest.approx([0.6931471806, 0.0])
    assert k3(policy, reference)[0].tolist() == pytest.approx([0.1931471806, 0.0])


def test_both_penalties_are_the_divergence_on_average() -> None:
    """Over a distribution of three tokens: E[k1] = E[k3] = KL, and k3's own gradient is that of the divergence."""
    policy, reference = torch.tensor([0.2, 0.3, 0.5]).double(), torch.tensor([0.5, 0.3, 0.2]).double()
    divergence = (policy * (policy / reference).log()).sum()
    for penalty in (k1, k3):
        assert (policy * penalty(policy.log(), reference.log())).sum().item() == pytest.approx(divergence.item())
    assert (k3(policy.log(), reference.log()) >= 0).all() and (k1(policy.log(), reference.log()) < 0).any()


def test_row_means_leave_the_padding_out() -> None:
    assert row_means(table([1.0, 3.0, 9.0], [5.0, 9.0, 9.0]), masked(2, 0, width=3)).tolist() == [2.0, 0.0]
