"""Layers with a recurrent state in packed rows: gated delta nets, Mamba-2 and short convolutions of hybrid models.

Attention layers see the prefix of an answer by its keys; these layers by the state after its last token. A prefix
passes the layer once, its answers continue from its state, side by side as rows of a batch. Hidden image tokens are
left out: the state never sees them.

The layers are Transformers' own. All take the state from the same cache interface, which `LayerState` implements
without writing into tensors that the gradient needs.
"""

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from sightline.errors import InputError
from sightline.models.packing import Span

#: Names in `layer_types` of layers that read no attention mask.
LINEAR_KINDS = frozenset({"linear_attention", "conv", "mamba", "moe", "mlp"})
#: The names that Transformers gives to the cache argument of such a layer.
CACHES = ("cache_params", "past_key_values")


@dataclass
class LayerState:
    """The state of one layer after the tokens so far, with Transformers' cache interface; empty before the first.

    The first dimension of every tensor is the row. A layer replaces the tensors and does not change them, except with
    `in_place` and one token per row: then its kernels may write into them, which no gradient allows.
    """

    conv: dict[int, Tensor] = field(default_factory=dict)
    recurrent: dict[int, Tensor] = field(default_factory=dict)
    in_place: bool = False

    def get_conv_state(self, layer_idx: int | None = None, state_idx: int = 0) -> Tensor | None:  # noqa: ARG002
        """The last inputs of the convolution."""
        return self.conv.get(state_idx)

    def get_recurrent_state(self, layer_idx: int | None = None, state_idx: int = 0) -> Tensor | None:  # noqa: ARG002
        """The recurrent state."""
        return self.recurrent.get(state_idx)

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:  # noqa: ARG002
        """Whether there were tokens before."""
        return bool(self.conv)

    def is_recording_past(self, layer_idx: int | None = None) -> bool:  # noqa: ARG002
        """Whether the layer must not write into the state of the convolution."""
        return not self.in_place

    def update_conv_state(
        self,
        conv_states: Float[Tensor, "row channel token"],
        layer_idx: int | None = None,  # noqa: ARG002
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **_: Any,
    ) -> Tensor:
        """Continue with new inputs of the convolution; returns them after those before."""
        size, known = conv_kernel_size or conv_states.shape[-1], self.conv.get(state_idx)
        inputs = conv_states if known is None else torch.cat([known, conv_states], -1)
        inputs = functional.pad(inputs, (max(0, size - inputs.shape[-1]), 0))
        self.conv[state_idx] = inputs[..., -size:]
        return inputs

    def update_recurrent_state(
        self,
        recurrent_states: Tensor,
        layer_idx: int | None = None,  # noqa: ARG002
        state_idx: int = 0,
        **_: Any,
    ) -> Tensor:
        """Replace the recurrent state."""
        self.recurrent[state_idx] = recurrent_states
        return recurrent_states

    def each(self, change: Callable[[Tensor], Tensor]) -> "LayerState":
        """A new state with every tensor changed."""
        conv = {number: change(tensor) for number, tensor in self.conv.items()}
        return LayerState(conv, {number: change(tensor) for number, tensor in self.recurrent.items()}, self.in_place)

    def row(self, number: int) -> "LayerState":
        """The state of one row, not copied."""
        return self.each(lambda tensor: tensor[number : number + 1])

    def select(self, rows: Int[Tensor, "kept"]) -> "LayerState":
        """The state of some rows, copied."""
        return self.each(lambda tensor: tensor[rows])

    def bytes(self) -> int:
        """The bytes of all tensors."""
        return sum(tensor.nbytes for tensor in (*self.conv.values(), *self.recurrent.values()))


def joined(states: Sequence[LayerState]) -> LayerState:
    """The states of several rows as one; equal objects of one row are expanded, not copied."""
    first = states[0]
    if all(state is first for state in states):
        return first.each(lambda tensor: tensor.expand(len(states), *tensor.shape[1:]))
    conv = {number: torch.cat([state.conv[number] for state in states]) for number in first.conv}
    return LayerState(
        conv, {number: torch.cat([state.recurrent[number] for state in states]) for number in first.recurrent}
    )


#: Runs a layer on the next tokens of each row; the state becomes that after the last of them.
Run = Callable[[Tensor, LayerState], Tensor]


class StatefulLayer(nn.Module):
    """Mixin for a layer of Transformers: with the `layout` of a pass, the layout runs the layer on its rows."""

    state_number: int
    cache_name: str

    def forward(self, hidden_states: Tensor, *args: Any, layout: Any = None, **kwargs: Any) -> Any:
        """Transformers' forward without a layout."""
        if layout is None:
            return super().forward(hidden_states, *args, **kwargs)
        # Packed rows have no padding, and the layer's own cache is replaced.
        known = {name: value for name, value in kwargs.items() if name not in (*CACHES, "attention_mask")}

        def run(rows: Tensor, state: LayerState) -> Tensor:
            output = super(StatefulLayer, self).forward(rows, **{self.cache_name: state}, attention_mask=None, **known)
            return cast(Tensor, output)

        return layout.states.recur(self.state_number, hidden_states, run)


def use_states(decoder: nn.Module) -> None:
    """Let layouts run the layers of a decoder that have a recurrent state, in place."""
    for number, module in enumerate(each for each in decoder.modules() if _is_stateful(_class_of(each))):
        layer = cast(StatefulLayer, module)
        parameters = inspect.signature(type(module).forward).parameters
        layer.cache_name = next(name for name in CACHES if name in parameters)
        layer.state_number = number
        module.__class__ = _with_layouts(_class_of(module))
        if "_old_forward" in module.__dict__:  # what the hook of a model spread over devices by Accelerate calls
            module.__dict__["_old_forward"] = types.MethodType(type(module).forward, module)


def stateful_layers(decoder: nn.Module) -> list[StatefulLayer]:
    """The layers that layouts run."""
    return [module for module in decoder.modules() if isinstance(module, StatefulLayer)]


def _class_of(module: nn.Module) -> Any:
    """The class of a module, which the type checker takes for unhashable."""
    return type(module)


@functools.cache
def _with_layouts(layer: type[nn.Module]) -> type[nn.Module]:
    return type(layer.__name__, (StatefulLayer, layer), {"__module__": layer.__module__})


@functools.cache
def _is_stateful(layer: type[nn.Module]) -> bool:
    """Whether the forward of a class of layers takes its past from the cache interface of linear layers."""
    if issubclass(layer, StatefulLayer) or layer.__module__.startswith("torch."):
        return False
    try:
        source = inspect.getsource(layer.forward)
    except (OSError, TypeError):
        return False
    parameters = inspect.signature(layer.forward).parameters
    reads = any(f".{name}(" in source for name in ("get_conv_state", "get_recurrent_state"))
    return reads and any(name in parameters for name in CACHES)


def packed_outputs(spans: Sequence[Span], hidden: Float[Tensor, "1 token dim"], run: Run) -> Tensor:
    """Outputs of a layer for packed rows: per prefix one pass, and one for its answers, padded on the right."""
    parts = []
    for span in spans:
        outputs, states = _prefix(hidden[:, span.shared], span.branches, run)
        parts.append(outputs)
        if any(span.answers):
            # A single token would take the layer's step, which may write into the state.
            answers = hidden[0, span.own].split(span.answers)
            rows = pad_sequence([*answers, answers[0].new_zeros(2, hidden.shape[2])], batch_first=True)[:-1]
            output = run(rows, joined([states[branch] for branch in span.branches]))
            kept = [row[:length] for row, length in zip(output, span.answers, strict=True)]
            parts.append(torch.cat(kept)[None])
    return torch.cat(parts, 1)


def prefilled_outputs(
    spans: Sequence[Span], hidden: Float[Tensor, "1 token dim"], run: Run
) -> tuple[Tensor, LayerState]:
    """As `packed_outputs`, without gradients, with the state after each answer.

    Answers of equal length pass together: padding would change the state.
    """
    parts, after = [], list[LayerState]()
    for span in spans:
        outputs, states = _prefix(hidden[:, span.shared], span.branches, run)
        answers = hidden[:, span.own].split(span.answers, dim=1)
        own, their_states = list(answers), [states[branch] for branch in span.branches]
        for length in {*span.answers} - {0}:
            numbers = [number for number, each in enumerate(span.answers) if each == length]
            state = joined([their_states[number] for number in numbers]).each(torch.clone)
            output = run(torch.cat([answers[number] for number in numbers]), state)
            for row, number in enumerate(numbers):
                own[number] = output[row : row + 1]
                their_states[number] = state.row(row)
        parts += [outputs, *own]
        after += their_states
    return torch.cat(parts, 1), joined(after)


def _prefix(
    hidden: Float[Tensor, "1 token dim"], branches: Iterable[int], run: Run
) -> tuple[Tensor, dict[int, LayerState]]:
    """Outputs of a prefix, and the state after as many of its tokens as each branch has."""
    states, parts, done = {0: LayerState()}, list[Tensor](), 0
    for end in sorted({*branches, hidden.shape[1]}):
        # Not one token from a state: that would take the layer's step, which may write into it.
        start = max(known for known in states if known == 0 or end - known > 1)
        states[end] = states[start].each(lambda tensor: tensor)
        parts.append(run(hidden[:, start:end], states[end])[:, done - start :])
        done = end
    return torch.cat(parts, 1), states


def require_no_states(decoder: nn.Module, what: str) -> None:
    """Raise InputError if the decoder has layers with a recurrent state, which `what` cannot be used with."""
    if stateful_layers(decoder):
        raise InputError(f"the language model has layers with a recurrent state, so {what}")
