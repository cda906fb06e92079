"""Torch's Muon with its orthogonalization in float32, for CPUs on which products in bfloat16 take many times as long.

Nothing else differs: settings, state and schedule are those of `torch.optim.Muon`, which is used wherever bfloat16 is
fast. `optimize` chooses.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Float32Muon(torch.optim.Muon):
    """`torch.optim.Muon` (Jordan et al. 2024; rates as `adjust_lr_fn="match_rms_adamw"` has them) in float32."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every matrix that has a gradient; those of one shape go through the iteration together."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for shape, parameters in alike.items():
                updates = orthogonalized(
                    torch.stack([self._momentum(parameter, group) for parameter in parameters]),
                    group["ns_coefficients"],
                    group["ns_steps"],
                    group["eps"],
                )
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)
        return loss

    def _momentum(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer.clone()


def orthogonalized(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Newton and Schulz's iteration of `steps` rounds on each of `matrices` [matrix, row, column]; float32, same shape.

    Singular values come out near 1, as the quintic with `coefficients` leaves them.
    """
    a, b, c = coefficients
    wide = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    wide = wide.float() / torch.linalg.matrix_norm(wide.float(), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.mT
        wide = a * wide + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ wide
    made: Tensor = wide.mT if matrices.shape[1] > matrices.shape[2] else wide
    return made
