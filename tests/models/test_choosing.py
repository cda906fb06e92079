"""Token choice by hand: four tokens with probabilities 0.1, 0.4, 0.3 and 0.2."""

import pytest
import torch

from sightline.models.sampler import choose_tokens, keep_nucleus

PROBABILITIES = torch.tensor([[0.1, 0.4, 0.3, 0.2]], dtype=torch.float64)


def choose(uniforms: list[float], temperature: float, top_p: float) -> list[int]:
    logits = PROBABILITIES.log().repeat(len(uniforms), 1)
    return choose_tokens(logits, torch.tensor(uniforms), temperature=temperature, top_p=top_p).tolist()


def test_greedy_takes_the_largest_and_the_first_of_equals() -> None:
    assert choose([0.99], 0.0, 1.0) == [1]
    equal = torch.tensor([[0.0, 2.0, 2.0]])
    assert choose_tokens(equal, torch.tensor([0.9]), temperature=0.0, top_p=1.0).tolist() == [1]


def test_the_uniform_number_falls_into_the_tokens_share() -> None:
    assert choose([0.0, 0.099, 0.101, 0.499, 0.501, 0.799, 0.801, 0.9999999], 1.0, 1.0) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_temperature_one_half_squares_the_odds() -> None:
    # Squares 1, 16, 9, 4 of 30: borders at 0.0333, 0.5667, 0.8667.
    assert choose([0.03, 0.04, 0.56, 0.57, 0.86, 0.87], 0.5, 1.0) == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.39, [1]), (0.4, [1]), (0.41, [1, 2]), (0.69, [1, 2]), (0.71, [1, 2, 3]), (0.95, [0, 1, 2, 3])],
)
def test_the_nucleus_is_the_smallest_set_that_holds_top_p(top_p: float, kept: list[int]) -> None:
    nucleus = keep_nucleus(PROBABILITIES, top_p)[0]
    assert nucleus.nonzero()[:, 0].tolist() == kept
    assert torch.equal(nucleus[kept], PROBABILITIES[0, kept])


def test_inside_the_nucleus_the_shares_are_rescaled() -> None:
    # 0.4 and 0.3 remain: the border is at 4/7 = 0.5714.
    assert choose([0.0, 0.57, 0.573, 0.9999], 1.0, 0.5) == [1, 1, 2, 2]
