"""The fused LoRA layer against PEFT's in float64, and the cases in which it falls back to PEFT's."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from sightline.models.routing import FusedLinear, fuse_lora


def layer_of(dropout: float = 0.0, bias: bool = True, *, fused: bool) -> nn.Module:
    """A layer from 3 to 5 features with rank 2 and scale 1.5, in float64, with random weights."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=3, lora_dropout=dropout, target_modules=["0"])
    model: Any = get_peft_model(nn.Sequential(nn.Linear(3, 5, bias=bias)), config).double()
    for weight in model.parameters():
        weight.data = torch.randn_like(weight)
    if fused:
        fuse_lora(model)
    found = model.base_model.model[0]
    assert isinstance(found, FusedLinear if fused else Linear)
    return found


def outcome(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of x, A and B."""
    leaf = x.clone().requires_grad_()
    out = layer(leaf)
    (out.sin() * torch.arange(out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    trained = [weight.grad for weight in layer.parameters() if weight.requires_grad]
    return [out.detach(), *(grad for grad in (leaf.grad, *trained) if grad is not None)]


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_peft(bias: bool) -> None:
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    found, expected = (outcome(layer_of(bias=bias, fused=fused), x) for fused in (True, False))
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_its_gradients_are_those_of_differences() -> None:
    layer = layer_of(fused=True)
    weights = [weight for weight in layer.parameters() if weight.requires_grad]
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def compute(x: Tensor, *_: Tensor) -> Tensor:
        output: Tensor = layer(x)
        return output

    assert torch.autograd.gradcheck(compute, (x, *weights))


def disable(layer: Any) -> None:
    layer.enable_adapters(False)


def merge_adapter(layer: Any) -> None:
    layer.merge()


def unfreeze(layer: Any) -> None:
    layer.get_base_layer().requires_grad_(True)


def to_float32(layer: Any) -> None:
    layer.lora_A.float()
    layer.lora_B.float()


def mark_sharded(layer: Any) -> None:
    layer.lora_A["default"].weight.ds_id = 1  # as DeepSpeed marks what it takes apart


@pytest.mark.parametrize("change", [disable, merge_adapter, unfreeze, to_float32, mark_sharded])
def test_where_it_is_more_than_plain_lora_peft_computes(
    change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    ours, theirs = layer_of(fused=True), layer_of(fused=False)
    change(ours)
    change(theirs)
    monkeypatch.setattr("sightline.models.routing._Fused.apply", None)  # calling it would fail
    assert torch.equal(ours(x), theirs(x))


def test_dropout_is_peft_s_while_training() -> None:
    x = torch.randn(400, 3, dtype=torch.float64)
    ours, theirs = (layer_of(0.5, fused=fused).train() for fused in (True, False))
    torch.manual_seed(1)
    output = ours(x)
    torch.manual_seed(1)
    assert torch.equal(output, theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(output, ours(x))
