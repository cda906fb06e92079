"""What a model's own forward hands to its decoder: merged embeddings, positions, masks and other inputs.

The forward of a vision-language model encodes the images, merges them into the embeddings, and computes positions and
masks; the decoder does the rest. A hook before the decoder keeps its keyword arguments, and either stops the forward
there (`record`) or changes them and lets it continue (`hiding`). Neither needs to know the model's type.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.models.vlm import decoder_of

Kwargs = dict[str, Any]
#: Arguments of a decoder that are computed anew for packed rows.
OWN = frozenset(
    {"input_ids", "inputs_embeds", "position_ids", "attention_mask", "past_key_values", "use_cache", "layout"}
    | {"return_dict", "logits_to_keep", "cache_position", "output_hidden_states", "output_attentions"}
)


class UnknownInputs(Exception):
    """Raised where the decoder's inputs of several rows cannot be joined; the way is not used then."""


class _Stop(Exception):
    """Raised by the hook to end a forward at its decoder."""


@dataclass(frozen=True)
class Recording:
    """The decoder's inputs for one row.

    `masks` has the masks that let tokens see later ones, by kind of layer ("" for all), True where a token sees
    another; other masks are causal or sliding windows. `others` are further arguments by name.
    """

    embedded: Float[Tensor, "token dim"]
    positions: Int[Tensor, "axis token"] | None
    masks: dict[str, Bool[Tensor, "token token"]]
    others: Kwargs


def record(base: Any, inputs: Mapping[str, Any]) -> Recording:
    """Run the model's forward up to its decoder.

    Raises:
        UnknownInputs: the decoder is not called, or not with embeddings of one row.
    """
    seen: Kwargs = {}

    def stop(_: Any, args: tuple[Any, ...], kwargs: Kwargs) -> None:
        seen.update(kwargs)
        if args:
            seen.setdefault("input_ids", args[0])
        raise _Stop

    handle = decoder_of(base).register_forward_pre_hook(stop, with_kwargs=True, prepend=True)
    try:
        base(**inputs, use_cache=False)
    except _Stop:
        pass
    finally:
        handle.remove()
    embedded = seen.get("inputs_embeds")
    if embedded is None and seen.get("input_ids") is not None:
        embedded = base.get_input_embeddings()(seen["input_ids"])
    if not isinstance(embedded, Tensor) or embedded.ndim != 3:
        raise UnknownInputs("the decoder is not called with embeddings")
    others = {name: value for name, value in seen.items() if name not in OWN and value is not None}
    return Recording(embedded[0], positions_of(seen), _masks(seen.get("attention_mask")), others)


def positions_of(kwargs: Kwargs) -> Int[Tensor, "axis token"] | None:
    """The positions that a decoder is called with for one row; None if it counts itself."""
    positions = kwargs.get("position_ids")
    if positions is None:
        return None
    if not isinstance(positions, Tensor) or positions.ndim > 3 or (positions.ndim > 1 and positions.shape[-2] != 1):
        raise UnknownInputs("the decoder's positions have an unknown shape")
    found: Tensor = positions.reshape(-1, positions.shape[-1])
    return found


def _masks(given: Any) -> dict[str, Tensor]:
    masks = given if isinstance(given, dict) else {"": given}
    found = {}
    for kind, mask in masks.items():
        if isinstance(mask, Tensor) and mask.ndim == 4:
            sees = mask[0, 0] if mask.dtype == torch.bool else mask[0, 0] == 0
            if bool(sees.triu(1).any()):
                found[kind] = sees
    return found


def select(value: Any, kept: Bool[Tensor, "token"], images: Bool[Tensor, "image_token"]) -> Any:
    """Leave hidden tokens out of an argument that has an entry for each token or each image token."""
    if isinstance(value, dict):
        return {key: select(each, kept, images) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(select(each, kept, images) for each in value)
    axis = _axis(value, len(kept), len(images))
    if axis is None:
        return value
    which = kept if value.shape[axis] == len(kept) else images
    return value.index_select(axis, which.nonzero()[:, 0].to(value.device))


def _axis(value: Any, tokens: int, images: int) -> int | None:
    """The dimension of an argument that counts tokens or image tokens."""
    if not isinstance(value, Tensor):
        return None
    shape = tuple(value.shape)
    for axis in range(min(3, len(shape))):
        if shape[axis] == tokens and all(size == 1 for size in shape[max(0, axis - 1) : axis]):
            return axis
    return 0 if images and shape and shape[0] == images else None


@dataclass(frozen=True)
class DecoderPart:
    """A part of a packed sequence: its further arguments, and its numbers of tokens and of image tokens."""

    others: Kwargs
    tokens: int
    images: int


def join(segments: list[DecoderPart]) -> Kwargs:
    """The further arguments of a packed sequence.

    Raises:
        UnknownInputs: an argument has no entry for each token and differs between segments.
    """
    names = dict.fromkeys(name for segment in segments for name in segment.others)
    return {name: _joined([(each.others.get(name), each) for each in segments], name) for name in names}


def _joined(parts: list[tuple[Any, DecoderPart]], name: str) -> Any:
    """Join one argument, or one entry of it; segments without it have zeros for their tokens."""
    known = [(value, segment) for value, segment in parts if value is not None]
    first, owner = known[0]
    if isinstance(first, dict | list | tuple) and first:
        keys = list(first) if isinstance(first, dict) else list(range(len(first)))
        if any(_keys(value) != keys for value, _ in known if value):
            raise UnknownInputs(f"the decoder's {name} differs in form between rows")
        entries = {key: _joined([(_entry(value, key), one) for value, one in parts], name) for key in keys}
        return entries if isinstance(first, dict) else type(first)(entries.values())
    if isinstance(first, Tensor):
        axes = {_axis(value, segment.tokens, segment.images) for value, segment in known}
        axis = axes.pop()
        if axis is not None and not axes:
            return torch.cat(list(_entries(parts, first, owner, axis)), dim=axis)
    if all(_equal(value, first) for value, _ in known):
        return first
    raise UnknownInputs(f"the decoder's {name} differs between rows")


def _entries(parts: list[tuple[Any, DecoderPart]], first: Tensor, owner: DecoderPart, axis: int) -> Iterator[Tensor]:
    by_token = first.shape[axis] == owner.tokens
    for value, segment in parts:
        if value is not None:
            yield value
        elif by_token:
            yield first.new_zeros((*first.shape[:axis], segment.tokens, *first.shape[axis + 1 :]))


def _keys(value: Any) -> list[Any]:
    return list(value) if isinstance(value, dict) else list(range(len(value)))


def _entry(value: Any, key: Any) -> Any:
    return value[key] if value else None


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


@contextlib.contextmanager
def changed_inputs(base: Any, change: Callable[[Kwargs], Kwargs]) -> Iterator[None]:
    """Context in which the decoder is called with changed keyword arguments."""

    def hook(_: Any, args: tuple[Any, ...], kwargs: Kwargs) -> tuple[tuple[Any, ...], Kwargs]:
        return args, change(kwargs)

    handle = decoder_of(base).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def hide(kwargs: Kwargs, is_image: Bool[Tensor, "token"], hidden: frozenset[int], how: str) -> Kwargs:
    """The decoder's arguments of one row with image tokens hidden; all other tokens keep their positions.

    `how` is "masked": no other token sees their keys; or "left out": they are not in the sequence, as models with
    states over the sequence require.
    """
    tokens = kwargs["inputs_embeds"].shape[1]
    images = torch.ones(int(is_image.sum()), dtype=torch.bool)
    images[sorted(hidden)] = False
    kept = torch.ones(tokens, dtype=torch.bool)
    kept[is_image.nonzero()[:, 0]] = images
    device = kwargs["inputs_embeds"].device
    kept = kept.to(device)
    positions = kwargs.get("position_ids")
    positions = torch.arange(tokens, device=device)[None] if positions is None else positions
    mask = kwargs.get("attention_mask")
    if how == "masked":
        return {**kwargs, "position_ids": positions, "attention_mask": _mask_keys(mask, kept)}
    others = {name: select(value, kept, images.to(device)) for name, value in kwargs.items() if name not in OWN}
    own = {name: value for name, value in kwargs.items() if name in OWN}
    return {
        **own,
        **others,
        "inputs_embeds": kwargs["inputs_embeds"][:, kept],
        "position_ids": positions[..., kept],
        "attention_mask": _drop_keys(mask, kept),
    }


def _mask_keys(mask: Any, kept: Bool[Tensor, "token"]) -> Any:
    if isinstance(mask, dict):
        wide = {kind: _causal(len(kept), kept.device) if each is None else each for kind, each in mask.items()}
        return {kind: _mask_keys(each, kept) for kind, each in wide.items()}
    if mask is None or mask.ndim == 2:
        two = kept[None].long()
        return two if mask is None else mask * two.to(mask.dtype)
    own = torch.eye(len(kept), dtype=torch.bool, device=kept.device)
    seen = kept[None] | own  # a hidden token sees itself, so that its own state is a number
    if mask.dtype == torch.bool:
        return mask & seen
    return mask.masked_fill(~seen, torch.finfo(mask.dtype).min)


def _causal(tokens: int, device: torch.device) -> Bool[Tensor, "1 1 token token"]:
    return torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device=device).tril()


def _drop_keys(mask: Any, kept: Bool[Tensor, "token"]) -> Any:
    if isinstance(mask, dict):
        return {kind: None if each is None else _drop_keys(each, kept) for kind, each in mask.items()}
    if mask is None or mask.ndim == 2:
        # Without a mask, Transformers takes gaps between positions for the borders of packed sequences.
        return torch.ones(1, int(kept.sum()), dtype=torch.long, device=kept.device)
    return mask[..., kept, :][..., kept]


def has_states(base: Any) -> bool:
    """Whether layers of the decoder carry states along the sequence: convolutions and linear attention."""
    return any(_carries_state(type(module)) for module in decoder_of(base).modules())


def _carries_state(kind: Any) -> bool:
    forwards = [inspect.unwrap(each.__dict__["forward"]) for each in kind.__mro__ if "forward" in each.__dict__]
    codes = (getattr(forward, "__code__", None) for forward in forwards)
    names = {name for code in codes if code is not None for name in code.co_names}
    return any(word in name for name in names for word in ("conv_state", "recurrent_state", "ssm_state"))
