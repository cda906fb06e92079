"""LoRA layers: routed by token, with one adapter per kind of image token and one for text; and fused plain LoRA.

Routing is DAMC's decoupling (arXiv 2402.12750): weights are split by kind of token, attention stays joint. The layout
of each pass gives the kind of each token, so only Sightline's engine runs such a model. `adapters` adds the adapters,
`composed` joins several models.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import Tensor, nn

from sightline.errors import InputError
from sightline.models.device import to_device
from sightline.models.linear_layers import require_no_states
from sightline.models.vlm import decoder_of

#: PEFT's name for the adapter of text.
TEXT = "default"


class Routing:
    """The adapter of each token in the current pass, shared by all layers of a model.

    Tokens of member i use the adapter `members[i]`, all others (-1) the adapter `TEXT`.
    """

    def __init__(self, members: Sequence[str]) -> None:
        self.members = tuple(members)
        self._tokens: Tensor | None = None
        self._places: dict[str, Tensor] = {}

    def set_tokens(self, tokens: Int[Tensor, "token"] | None) -> None:
        """Set the members of the current pass (`AttentionLayout.members`)."""
        if tokens is self._tokens:
            return
        self._tokens, self._places = tokens, {}
        if tokens is not None:
            names = (TEXT, *self.members)
            on_host = tokens.cpu()  # as `Packed.members` is, so that no layer waits for the device
            found = {name: (on_host == number).nonzero()[:, 0] for number, name in enumerate(names, -1)}
            self._places = {name: places for name, places in found.items() if len(places)}

    def parts(self, rows: Float[Tensor, "token dim"]) -> Iterator[tuple[str, Tensor | None, Tensor]]:
        """Yield each adapter, the positions of its tokens (None for all tokens), and the rows of these tokens."""
        if self._tokens is None:
            yield TEXT, None, rows
            return
        for name, places in self._places.items():
            if places.device != rows.device:
                self._places[name] = places = to_device(places, rows.device)
            whole = len(places) == len(rows)
            yield name, None if whole else places, rows if whole else rows[places]


class RoutedLinear(Linear):
    """A LoRA layer of PEFT with several adapters, one of which is applied to each token (W x + s B A x)."""

    routing: Routing

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """PEFT's forward for rows of tokens; with adapters disabled, the base layer alone."""
        base: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return base
        rows = x.reshape(-1, x.shape[-1])
        out = base.reshape(-1, base.shape[-1])
        for name, places, some in self.routing.parts(rows):
            if name not in self.lora_A:
                continue
            down: Any = self.lora_A[name]
            low = down(self.lora_dropout[name](some.to(down.weight.dtype)))
            delta = (self.lora_B[name](low) * self.scaling[name]).to(out.dtype)
            out = out + delta if places is None else out.index_add(0, places, delta)
        return out.view(base.shape)


def route(model: PeftModel, members: Sequence[str]) -> PeftModel:
    """Route the LoRA layers of `model` by token, in place; all their adapters become active.

    Raises:
        InputError: an adapter is not plain LoRA, or the language model has no attention layers to hook into, or layers
            with a recurrent state, which run on parts of the packed sequence.
    """
    base: Any = model.get_base_model()
    require_no_states(base.get_decoder(), "adapters cannot be routed by token; use one adapter")
    known = next((module.routing for module in model.modules() if isinstance(module, RoutedLinear)), None)
    routing = known if known is not None and known.members == tuple(members) else Routing(members)
    for name, module in model.named_modules():
        if not isinstance(module, Linear):
            continue
        if any(module.lora_variant) or any(module.lora_bias.values()):
            raise InputError(
                f"{name} is not plain LoRA (but, for instance, DoRA) and cannot be routed by token; use plain LoRA"
            )
        module.__class__ = RoutedLinear
        cast(Any, module).routing = routing
        module.set_adapter([each for each in (TEXT, *members) if each in module.lora_A])
    if routing is known:
        return model
    attentions = [module for name, module in decoder_of(base).named_modules() if name.endswith("attn")]
    if not attentions:
        raise InputError(
            "the language model has no layers named *attn, so adapters cannot be routed by token; use one adapter"
        )
    for module in attentions:
        # Hooked inside the layers, so that a layer recomputed for its gradient gets its tokens again.
        module.register_forward_pre_hook(_layout_hook(routing), with_kwargs=True)
    return model


def is_routed(model: nn.Module) -> bool:
    """Whether the adapters are routed by token."""
    return any(isinstance(module, RoutedLinear) for module in model.modules())


def _layout_hook(routing: Routing) -> Any:
    def set_tokens(_: nn.Module, __: tuple[Any, ...], given: dict[str, Any]) -> None:
        layout = given.get("layout")
        if layout is None:
            raise ValueError("adapters routed by token need Sightline's engine; use its scorer and sampler")
        routing.set_tokens(layout.members)

    return set_tokens


class FusedLinear(Linear):
    """A LoRA layer of PEFT (Hu et al. 2021, eq. 3) with a fused forward; falls back to PEFT's if it is not plain."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """PEFT's forward, fused if possible."""
        if args or kwargs or not self._is_plain(x):
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        (name,) = self.active_adapters
        base, scale = self.get_base_layer(), float(self.scaling[name])
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        return cast(Tensor, _Fused.apply(x, base.weight, base.bias, down, up, scale))  # type: ignore[no-untyped-call]

    def _is_plain(self, x: Tensor) -> bool:
        """Whether one enabled adapter without dropout is on a frozen linear layer, in dtypes that `_Fused` computes.

        These are one dtype for all and no autocast; or bfloat16 weights with a float32 adapter, where the input is
        bfloat16 or autocast makes it so.
        """
        names = self.active_adapters
        if self.disable_adapters or self.merged or len(names) != 1 or names[0] not in self.lora_A:
            return False
        name, base = names[0], self.get_base_layer()
        drops = self.training and not isinstance(self.lora_dropout[name], nn.Identity)
        if drops or name in self.lora_variant or self.lora_bias[name] or type(base) is not nn.Linear:
            return False
        weights = (base.weight, self.lora_A[name].weight, self.lora_B[name].weight)
        frozen = not any(weight.requires_grad for weight in base.parameters())
        # FSDP and ZeRO gather sharded weights only in the forward of the layers that own them, which this skips.
        whole = all(type(weight) is nn.Parameter and not hasattr(weight, "ds_id") for weight in weights)
        down, up = (cast(Tensor, part[name].weight).dtype for part in (self.lora_A, self.lora_B))
        return frozen and whole and _computes(x, base.weight.dtype, down, up)


def _computes(x: Tensor, weight: torch.dtype, down: torch.dtype, up: torch.dtype) -> bool:
    """Whether `_Fused` computes a layer of these dtypes."""
    kind = x.device.type
    halved = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if x.dtype == weight == down == up:
        return not halved
    shown = torch.get_autocast_dtype(kind) if halved else x.dtype
    return shown == weight == torch.bfloat16 and down == up == torch.float32


def fuse_lora(model: nn.Module) -> None:
    """Give the plain LoRA layers of `model` the fused forward, in place."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = FusedLinear


class _Fused(torch.autograd.Function):
    """W x + b + s B A x for a frozen W, with gradients of x, A and B.

    All products are in the dtype of W: a float32 adapter over bfloat16 weights is rounded to bfloat16 for them, as
    autocast does, and only bfloat16 states are kept for the gradient. Gradients have the dtypes of x, A and B.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, s: float) -> Tensor:
        ctx.dtypes = x.dtype, down.dtype, up.dtype
        down, up = down.to(weight.dtype), up.to(weight.dtype)
        x = x.to(weight.dtype)
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ down.T
        out = nn.functional.linear(x, weight, bias)
        if out._is_view():  # of a single vector; views forbid in-place operations, such as Gemma 3n's scaling
            out = out.clone()
        out.view(-1, out.shape[-1]).addmm_(low, up.T, alpha=s)
        ctx.save_for_backward(rows, weight, down, up, low)
        ctx.scale, ctx.shape = s, x.shape
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        rows, weight, down, up, low = ctx.saved_tensors
        slope = gradients[0].reshape(-1, gradients[0].shape[-1]).to(weight.dtype)
        low_slope = (slope @ up).mul_(ctx.scale)
        of_x = (slope @ weight).addmm_(low_slope, down).view(ctx.shape) if ctx.needs_input_grad[0] else None
        of_down = low_slope.T @ rows if ctx.needs_input_grad[3] else None
        of_up = (slope.T @ low).mul_(ctx.scale) if ctx.needs_input_grad[4] else None
        of_x, of_down, of_up = (
            None if found is None else found.to(dtype)
            for found, dtype in zip((of_x, of_down, of_up), ctx.dtypes, strict=True)
        )
        return of_x, None, None, of_down, of_up, None
