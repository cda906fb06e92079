"""The recipe's optimizers (Muon, AdamW), their warm-up and cosine schedule, and the compute dtype."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sightline.errors import InputError
from sightline.models.device import computes_bfloat16

if TYPE_CHECKING:
    from torch.optim import Muon
else:
    Muon = getattr(torch.optim, "Muon", torch.optim.Optimizer)  # torch 2.8 has none, and `make_optimizers` refuses it


class Float32Muon(Muon):
    """`torch.optim.Muon` (Jordan et al. 2024; rates as `adjust_lr_fn="match_rms_adamw"` has them) in float32."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every matrix that has a gradient; matrices of one shape are processed together."""
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
                updates = orthogonalize(
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


def orthogonalize(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Newton and Schulz's iteration of `steps` rounds on each of `matrices` [matrix, row, column]; float32, same shape.

    Singular values come out near 1, as the quintic with `coefficients` leaves them.
    """
    a, b, c = coefficients
    wide = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    wide = wide.float() / torch.linalg.matrix_norm(wide.float(), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.mT
        wide = a * wide + torch.baddbmm(gram, gram, gram, beta=b, alpha=c) @ wide
    result: Tensor = wide.mT if matrices.shape[1] > matrices.shape[2] else wide
    return result


def fast_format(device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bfloat16 if the device supports it natively, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computes_bfloat16(device.type))


def make_optimizers(
    parameters: Iterable[tuple[str, nn.Parameter]], rate: float, decay: float
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of hidden layers, AdamW for the rest, both at `rate`; only Muon's matrices decay.

    With Muon (Jordan et al. 2024) the language model learns to use the picture within a few hundred steps; with AdamW
    on the same rows its yes/no answers were still near chance then (docs/results/lab.md has the comparison).

    Raises:
        InputError: the installed torch has no Muon.
    """
    named = [(name, p) for name, p in parameters if p.requires_grad]
    hidden = [p for name, p in named if p.ndim == 2 and ".layers." in name]
    rest = [p for name, p in named if not (p.ndim == 2 and ".layers." in name)]
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        optimizers.append(torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True))
    if hidden:
        if not hasattr(torch.optim, "Muon"):
            raise InputError(f"the recipe trains with Muon, which torch {torch.__version__} lacks; install torch 2.9")
        # scaled to AdamW's update size, so that one rate fits both
        kind = Muon if computes_bfloat16(hidden[0].device.type) else Float32Muon
        optimizers.append(kind(hidden, lr=rate, momentum=0.95, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def schedule_steps(optimizers: Sequence[torch.optim.Optimizer], steps: int, floor: float = 0.02) -> Iterator[int]:
    """Yield 0 .. steps - 1 with the learning rate set: linear warm-up over 5 %, then a cosine down to `floor`."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    peak = [group["lr"] for group in groups]
    warmup = max(1, steps // 20)
    for step in range(steps):
        scale = min(1.0, (step + 1) / warmup) * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group, rate in zip(groups, peak, strict=True):
            group["lr"] = rate * scale
        yield step


def take_step(optimizers: Sequence[torch.optim.Optimizer], loss: torch.Tensor) -> None:
    """One update from `loss`, the gradient clipped to norm 1.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss.item()}")
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    trained = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(trained, 1.0)
    for optimizer in optimizers:
        optimizer.step()
