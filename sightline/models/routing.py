"""LoRA chosen by token: image tokens go through an adapter of their kind, all others through the adapter of text.

This is DAMC's decoupling (arXiv 2402.12750): weights are split by whose token it is, attention stays joint. Which token
is whose comes with the layout of each pass, so only our engine runs such a model; how adapters are made is `adapters`,
how several become one model is `composed`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import Tensor, nn

from sightline.errors import InputError

#: PEFT's name for the adapter of text.
TEXT = "default"


class Routing:
    """Which adapter each token of the pass under way goes through; one object for all layers of a model.

    Member i's tokens go through the adapter `members[i]`, those of nobody (-1) through `TEXT`.
    """

    def __init__(self, members: Sequence[str]) -> None:
        self.members = tuple(members)
        self._tokens: Tensor | None = None
        self._places: dict[str, Tensor] = {}

    def see(self, tokens: Int[Tensor, "token"] | None) -> None:
        """Take `Layout.members` of a pass."""
        if tokens is self._tokens:
            return
        self._tokens, self._places = tokens, {}
        if tokens is not None:
            names = (TEXT, *self.members)
            found = {name: (tokens == number).nonzero()[:, 0] for number, name in enumerate(names, -1)}
            self._places = {name: places for name, places in found.items() if len(places)}

    def parts(self, rows: Float[Tensor, "token dim"]) -> Iterator[tuple[str, Tensor | None, Tensor]]:
        """Adapter, places of its tokens and these tokens' rows; the places are None where they are all."""
        if self._tokens is None:
            yield TEXT, None, rows
            return
        for name, places in self._places.items():
            whole = len(places) == len(rows)
            yield name, None if whole else places, rows if whole else rows[places]


class RoutedLinear(Linear):
    """A LoRA layer of PEFT with several adapters, of which each token goes through one (W x + s B A x)."""

    routing: Routing

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As PEFT's, for rows of tokens; switched off it is the layer below alone."""
        made: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return made
        rows = x.reshape(-1, x.shape[-1])
        out = made.reshape(-1, made.shape[-1])
        for name, places, some in self.routing.parts(rows):
            if name not in self.lora_A:
                continue
            down: Any = self.lora_A[name]
            low = down(self.lora_dropout[name](some.to(down.weight.dtype)))
            delta = (self.lora_B[name](low) * self.scaling[name]).to(out.dtype)
            out = out + delta if places is None else out.index_add(0, places, delta)
        return out.view(made.shape)


def route(model: PeftModel, members: Sequence[str]) -> PeftModel:
    """Let the LoRA layers of `model` choose by token, in place; all their adapters count as active.

    Raises:
        InputError: an adapter is more than plain LoRA, or the language model has no attention to learn tokens from.
    """
    known = next((module.routing for module in model.modules() if isinstance(module, RoutedLinear)), None)
    routing = known if known is not None and known.members == tuple(members) else Routing(members)
    for name, module in model.named_modules():
        if not isinstance(module, Linear):
            continue
        if any(module.lora_variant) or any(module.lora_bias.values()):
            raise InputError(f"{name} is more than plain LoRA (such as DoRA), which cannot be chosen by token")
        module.__class__ = RoutedLinear
        cast(Any, module).routing = routing
        module.set_adapter([each for each in (TEXT, *members) if each in module.lora_A])
    if routing is known:
        return model
    base: Any = model.get_base_model()
    attentions = [module for name, module in base.get_decoder().named_modules() if name.endswith("attn")]
    if not attentions:
        raise InputError("the language model has no layers called attn, so that its tokens cannot be told apart")
    for module in attentions:
        # Inside a layer, so that a layer which is computed again for its gradient asks again.
        module.register_forward_pre_hook(_asking(routing), with_kwargs=True)
    return model


def is_routed(model: nn.Module) -> bool:
    """Whether adapters are chosen by token."""
    return any(isinstance(module, RoutedLinear) for module in model.modules())


def _asking(routing: Routing) -> Any:
    def ask(_: nn.Module, __: tuple[Any, ...], given: dict[str, Any]) -> None:
        layout = given.get("layout")
        if layout is None:
            raise ValueError("adapters that are chosen by token need Sightline's engine: score and generate with it")
        routing.see(layout.members)

    return ask


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
