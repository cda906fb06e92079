"""The learning rate against values computed by hand, and which weights decay."""

import pytest
import torch
from torch import nn

from sightline.train.config import OptimizerConfig
from sightline.train.optimizer import make_optimizer, make_schedule


def test_cosine_with_warm_up_worked_by_hand() -> None:
    """10 steps, warm-up 0.2 * 10 = 2: a third, two thirds, then half a cosine over the 8 steps from the peak.

    Half a period is 8 steps, so 4 steps after the peak cos(pi / 2) = 0 and the rate is half; 2 after it is
    (1 + cos(pi / 4)) / 2 = 0.8535533906; at the last step, 7 after it, (1 + cos(7 pi / 8)) / 2 = 0.0380602337.
    """
    schedule = make_schedule(OptimizerConfig(lr=3.0, warmup_fraction=0.2), steps=10)
    rates = [3 * schedule(step) for step in range(10)]
    assert rates[:3] == pytest.approx([1.0, 2.0, 3.0])
    assert rates[4] == pytest.approx(3 * 0.8535533906)
    assert rates[6] == pytest.approx(1.5)
    assert rates[9] == pytest.approx(3 * 0.0380602337)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_constant_keeps_the_peak_after_the_warm_up() -> None:
    config = OptimizerConfig(lr=3.0, warmup_fraction=0.2, schedule="constant")
    assert [3 * make_schedule(config, 10)(step) for step in range(5)] == pytest.approx([1.0, 2.0, 3.0, 3.0, 3.0])


def test_a_line_falls_to_zero_one_step_after_the_last() -> None:
    """5 steps, none of warm-up: 1, then a fifth less each."""
    schedule = make_schedule(OptimizerConfig(lr=3.0, warmup_fraction=0.0, schedule="linear"), 5)
    assert [schedule(step) for step in range(5)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_no_warm_up_starts_at_the_peak_and_a_full_one_never_passes_it() -> None:
    assert make_schedule(OptimizerConfig(lr=3.0, warmup_fraction=0.0), 10)(0) == 1.0
    full = make_schedule(OptimizerConfig(lr=3.0, warmup_fraction=1.0), 2)
    assert [full(0), full(1)] == pytest.approx([1 / 3, 2 / 3])


def test_decay_takes_matrices_and_spares_biases_and_norms() -> None:
    """With zero gradients AdamW only decays: a weight of 2 becomes 2 * (1 - lr * decay) = 2 * (1 - 0.1 * 0.5) = 1.9."""
    linear, norm, frozen = nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2)
    model = nn.Sequential(linear, norm, frozen)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 2.0)
        parameter.grad = torch.zeros_like(parameter)
    frozen.requires_grad_(False)
    optimizer = make_optimizer(model.named_parameters(), OptimizerConfig(lr=0.1, weight_decay=0.5))
    optimizer.step()
    assert linear.weight.unique().tolist() == pytest.approx([1.9])
    for untouched in (linear.bias, norm.weight, norm.bias, frozen.weight, frozen.bias):
        assert untouched.unique().tolist() == [2.0]


def test_the_first_step_of_adamw_is_the_rate_times_the_sign() -> None:
    """Bias-corrected, the first step is lr * g / |g|, whatever the betas: 2 - 0.1 = 1.9 for g = 3, 2.1 for g = -3."""
    weight = nn.Parameter(torch.tensor([[2.0, 2.0]]))
    weight.grad = torch.tensor([[3.0, -3.0]])
    make_optimizer([("weight", weight)], OptimizerConfig(lr=0.1, betas=(0.8, 0.9))).step()
    assert weight[0].tolist() == pytest.approx([1.9, 2.1], abs=1e-6)


def test_a_weight_may_have_a_peak_of_its_own() -> None:
    """Two rates, decay on matrices alone: three groups, the optimizer's own rate first."""
    model = nn.ModuleDict({"body": nn.Linear(2, 2, bias=False), "head": nn.Linear(2, 2)})
    config = OptimizerConfig(lr=0.1, weight_decay=0.5)
    optimizer = make_optimizer(
        model.named_parameters(), config, lambda name: 0.01 if name.startswith("head.") else None
    )
    groups = [(group["lr"], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    assert groups == [(0.1, 0.5, 1), (0.01, 0.5, 1), (0.01, 0.0, 1)]
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
        nn.init.zeros_(weight)
    optimizer.step()
    assert model.get_parameter("body.weight").unique().tolist() == pytest.approx([-0.1])
    assert model.get_parameter("head.weight").unique().tolist() == pytest.approx([-0.01])
