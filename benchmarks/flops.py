"""Count the floating-point operations of matrix products, convolutions and attention while they run.

As torch's FlopCounterMode, with its formulas, but without the hooks by which that one tells modules apart: they cannot
stand `torch.autograd.grad` inside a function of its own. Attention counts as if no key were masked.
"""

from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    flop_registry,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

aten = torch.ops.aten


@register_flop_formula(aten._scaled_dot_product_flash_attention_for_cpu)
def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Count attention on the CPU, which torch counts on GPUs only."""
    return int(sdpa_flop_count(query, key, value))


@register_flop_formula(aten._scaled_dot_product_flash_attention_for_cpu_backward)
def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


class Flops(TorchDispatchMode):
    """A context that adds up `total`."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __enter__(self) -> Self:
        return super().__enter__()  # type: ignore[no-any-return]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:  # in inference mode what is made of other operations arrives whole
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out
