"""PEFT's LoRA layers with fewer passes over the activations: same values and gradients, other order of the sums.

PEFT computes W x, then B A x, scales it and adds it, and autograd goes the same way back, each a pass over a tensor as
large as the output; here they are part of the matrix products. Where a layer is more than plain LoRA, PEFT's own
forward is taken; what is saved, merged and switched off is PEFT's throughout.
"""

from typing import Any, cast

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn


class FusedLinear(Linear):
    """A LoRA layer of PEFT (Hu et al. 2021, eq. 3) that fuses its forward where it can."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As PEFT's."""
        if args or kwargs or not self._is_plain(x):
            made: Tensor = super().forward(x, *args, **kwargs)
            return made
        (name,) = self.active_adapters
        base, scale = self.get_base_layer(), float(self.scaling[name])
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        return cast(Tensor, _Fused.apply(x, base.weight, base.bias, down, up, scale))  # type: ignore[no-untyped-call]

    def _is_plain(self, x: Tensor) -> bool:
        """One adapter that is on, without dropout, over a frozen layer, all in the number format of the input."""
        names = self.active_adapters
        if self.disable_adapters or self.merged or len(names) != 1 or names[0] not in self.lora_A:
            return False
        name, base = names[0], self.get_base_layer()
        drops = self.training and not isinstance(self.lora_dropout[name], nn.Identity)
        if drops or name in self.lora_variant or self.lora_bias[name] or type(base) is not nn.Linear:
            return False
        weights = (base.weight, self.lora_A[name].weight, self.lora_B[name].weight)
        frozen = not any(weight.requires_grad for weight in base.parameters())
        # Weights that FSDP or ZeRO shards are whole inside the layers that own them alone, whose forward this skips.
        whole = all(type(weight) is nn.Parameter and not hasattr(weight, "ds_id") for weight in weights)
        same = all(weight.dtype == x.dtype for weight in weights) and not torch.is_autocast_enabled(x.device.type)
        return frozen and whole and same


def fuse_lora(model: nn.Module) -> None:
    """Let the plain LoRA layers of `model` compute so, in place."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = FusedLinear


class _Fused(torch.autograd.Function):
    """W x + b + s B A x for a frozen W; backward gives gradients of x, A and B."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, s: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ down.T
        out = nn.functional.linear(rows, weight, bias).addmm_(low, up.T, alpha=s)
        ctx.save_for_backward(rows, weight, down, up, low)
        ctx.scale, ctx.shape = s, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        rows, weight, down, up, low = ctx.saved_tensors
        slope = gradients[0].reshape(-1, gradients[0].shape[-1])
        low_slope = (slope @ up).mul_(ctx.scale)
        of_x = (slope @ weight).addmm_(low_slope, down).view(ctx.shape) if ctx.needs_input_grad[0] else None
        of_down = low_slope.T @ rows if ctx.needs_input_grad[3] else None
        of_up = (slope.T @ low).mul_(ctx.scale) if ctx.needs_input_grad[4] else None
        return of_x, None, None, of_down, of_up, None
