"""Dense DPO: a value worked by hand, token loops, and pairs without changed tokens."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.losses.dpo import dense_dpo, normalized_dpo
from sightline.losses.types import PairLogps
from tests.losses.example_pairs import log_sigmoid, logps

tokens = st.lists(st.tuples(st.floats(-3.0, -0.01), st.booleans()), min_size=1, max_size=8)


def pair(chosen: list[tuple[float, bool]], rejected: list[tuple[float, bool]]) -> PairLogps:
    """A pair from token log-probs, each changed or not."""
    sides = {"chosen": chosen, "rejected": rejected}
    sums = {name: sum(logp for logp, _ in side) for name, side in sides.items()}
    changed = {f"{name}_changed": sum(logp for logp, inside in side if inside) for name, side in sides.items()}
    counts = {f"{name}_tokens": len(side) for name, side in sides.items()}
    counts |= {f"{name}_changed_tokens": sum(inside for _, inside in side) for name, side in sides.items()}
    return logps(sums | changed, grad=False, **counts)


def test_value_worked_by_hand() -> None:
    """beta 0.5, gamma 5. Chosen: two tokens of -1, one changed: (-1 - 5) / 6 = -1 and for the reference
    (-1 + 5 * -2) / 6 = -11 / 6. Rejected: -1, -3 changed: -16 / 6; reference -1, -1 changed: -1.

    Rewards 0.5 * 5 / 6 = 0.4166667 and 0.5 * -10 / 6 = -0.8333333; loss log(1 + e^-1.25) = 0.2519291.
    """
    policy = pair([(-1, False), (-1, True)], [(-1, False), (-3, True)])
    reference = pair([(-1, False), (-2, True)], [(-1, False), (-1, True)])
    out = dense_dpo(policy, reference, beta=0.5, gamma=5.0)
    assert out.loss.item() == pytest.approx(0.2519290813)
    assert (out.chosen_reward.item(), out.rejected_reward.item()) == pytest.approx((5 / 12, -10 / 12))


@settings(max_examples=25)
@given(tokens, tokens, st.floats(-2.0, 2.0), st.floats(0.1, 10.0))
def test_the_printed_formula(
    chosen: list[tuple[float, bool]], rejected: list[tuple[float, bool]], moved: float, gamma: float
) -> None:
    """A loop over tokens; the reference has other log-probs and, as always, the same spans."""

    def dense(side: list[tuple[float, bool]]) -> float:
        total, weight = 0.0, 0.0
        for value, inside in side:
            total += (gamma if inside else 1.0) * value
            weight += gamma if inside else 1.0
        return total / weight

    others = [[(value + moved * k / 8, inside) for k, (value, inside) in enumerate(s)] for s in (chosen, rejected)]
    margin = (dense(chosen) - dense(others[0])) - (dense(rejected) - dense(others[1]))
    found = dense_dpo(pair(chosen, rejected), pair(*others), beta=0.5, gamma=gamma)
    assert found.loss.item() == pytest.approx(-log_sigmoid(0.5 * margin), rel=1e-9)


@settings(max_examples=25)
@given(tokens, tokens)
def test_with_weight_one_it_is_dpo_on_means(
    chosen: list[tuple[float, bool]], rejected: list[tuple[float, bool]]
) -> None:
    policy = pair(chosen, rejected)
    reference = pair([(value - 0.5, inside) for value, inside in chosen], rejected)
    plain = normalized_dpo(policy, reference, beta=0.5).loss.item()
    assert dense_dpo(policy, reference, beta=0.5, gamma=1.0).loss.item() == pytest.approx(plain)
    bare = [pair([(v, False) for v, _ in chosen], [(v, False) for v, _ in rejected]) for _ in range(2)]
    assert dense_dpo(*bare, beta=0.5, gamma=7.0).loss.item() == pytest.approx(math.log(2))


def test_changed_tokens_pull_harder() -> None:
    """The gradient of a changed token is gamma times that of an unchanged one."""
    policy = logps({"chosen": -4, "rejected": -5, "chosen_changed": -1, "rejected_changed": -2}, grad=True)
    reference = logps({"chosen": -4, "rejected": -5, "chosen_changed": -1, "rejected_changed": -2})
    dense_dpo(policy, reference, beta=0.5, gamma=5.0).loss.sum().backward()
    unchanged = policy.chosen.grad
    extra = policy.field("chosen_changed").grad
    assert unchanged is not None and extra is not None
    assert ((unchanged + extra) / unchanged).item() == pytest.approx(5.0)
