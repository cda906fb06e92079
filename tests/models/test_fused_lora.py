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


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3)])
def test_its_output_can_be_changed_in_place(shape: tuple[int, ...]) -> None:
    """Gemma 3n scales the output of a layer in place, which autograd forbids for views that a function returns."""
    x = torch.randn(*shape, dtype=torch.float64)

    def scaled(layer: nn.Module) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        out = layer(leaf)
        out *= 3.0
        out.sin().sum().backward()
        assert leaf.grad is not None
        return [out.detach(), leaf.grad, *(weight.grad for weight in layer.parameters() if weight.grad is not None)]

    for one, other in zip(scaled(layer_of(fused=True)), scaled(layer_of(fused=False)), strict=True):
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


def half_layer(*, fused: bool) -> nn.Module:
    """A layer from 48 to 64 features in bfloat16 with a float32 adapter of rank 8, as `add_lora` makes them."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(48, 64)).to(torch.bfloat16)
    model: Any = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=["0"]))
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn_like(weight) * 0.3
    if fused:
        fuse_lora(model)
    layer: nn.Module = model.base_model.model[0]
    return layer


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_float32_adapter_over_bfloat16_weights_is_fused(
    autocast: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype == torch.float32 and not autocast:
        pytest.skip("float32 states meet bfloat16 weights under autocast alone")
    x = torch.randn(6, 5, 48, dtype=dtype)
    results = []
    for layer in (half_layer(fused=True), half_layer(fused=False)):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            results.append(outcome(layer, x))
    exact = outcome(half_layer(fused=False).double(), x.double())
    fused, plain = results
    assert [one.dtype for one in fused] == [other.dtype for other in plain]
    assert fused[0].dtype == torch.bfloat16
    assert fused[2].dtype == torch.float32
    for one, other, true in zip(fused, plain, exact, strict=True):
        # Within the rounding of bfloat16 (eight bits), and no further from exact numbers than PEFT's own by more.
        assert (one.double() - other.double()).norm() < 2**-6 * true.norm()
        assert (one.double() - true).norm() < (other.double() - true).norm() + 2**-7 * true.norm()
    monkeypatch.setattr("sightline.models.routing._Fused.apply", None)  # it was the fused one that computed
    with pytest.raises(TypeError), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        half_layer(fused=True)(x)


def test_float16_and_float32_weights_under_autocast_are_peft_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.models.routing._Fused.apply", None)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (layer_of(fused=fused).float() for fused in (True, False))
        x = torch.randn(4, 3)
        assert torch.equal(ours(x), theirs(x))
