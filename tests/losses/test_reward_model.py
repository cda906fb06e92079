"""The reward model's loss: a value worked by hand, and swapped answers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.losses.reference_free import bradley_terry
from tests.losses.example_pairs import log_sigmoid, logps

score = st.floats(-9.0, 9.0)


def test_value_worked_by_hand() -> None:
    """Scores 1.5 and -0.5: log(1 + e^-2) = 0.1269280; equal scores: log 2. The slopes are -+sigma(-2) = 0.1192029."""
    scores = logps({"chosen": 1.5, "rejected": -0.5}, grad=True)
    out = bradley_terry(scores)
    out.loss.sum().backward()
    assert out.loss.item() == pytest.approx(0.1269280110)
    assert (out.chosen_reward.item(), out.rejected_reward.item()) == (1.5, -0.5)
    assert scores.chosen.grad is not None and scores.chosen.grad.item() == pytest.approx(-0.1192029220)
    assert scores.rejected.grad is not None and scores.rejected.grad.item() == pytest.approx(0.1192029220)
    assert bradley_terry(logps({"chosen": 3.0, "rejected": 3.0})).loss.item() == pytest.approx(math.log(2))


@given(score, score, score)
def test_only_the_difference_counts_and_the_mirror_adds_it(chosen: float, rejected: float, constant: float) -> None:
    there = bradley_terry(logps({"chosen": chosen, "rejected": rejected})).loss.item()
    back = bradley_terry(logps({"chosen": rejected, "rejected": chosen})).loss.item()
    moved = bradley_terry(logps({"chosen": chosen + constant, "rejected": rejected + constant})).loss.item()
    assert there == pytest.approx(-log_sigmoid(chosen - rejected), rel=1e-9, abs=1e-9)
    assert back - there == pytest.approx(chosen - rejected, abs=1e-9) and moved == pytest.approx(there, abs=1e-9)
