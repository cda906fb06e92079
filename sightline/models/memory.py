"""Memory of forward passes: reckoned from a model's config, and what to do where it does not suffice.

A batch that does not fit is halved and tried again, with one line; at one row the error says what lowers the need.
"""

import gc
import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from sightline.errors import InputError
from sightline.models.vlm import VLM

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)

#: The part of a GPU's free memory that passes may use; the rest is for temporary tensors and fragments.
USABLE = 0.8
#: Remedies, by what was computed.
TRAINING = "set activation_checkpointing=true, quantize=nf4, or a lower max_pixels or max_length"
SAMPLING = "set quantize=nf4, or a lower max_pixels or max_new_tokens"
SCORING = "set quantize=nf4 or a lower max_pixels"
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_NUMBER = r"(\d+(?:\.\d+)?) (bytes|KiB|MiB|GiB|TiB)"


def key_value_bytes(vlm: VLM) -> int:
    """The bytes of one token's keys and values in all layers: 2 x layers x key-value heads x head width x item size."""
    layers, _, _, _, groups, width = _sizes(vlm)
    return 2 * layers * groups * width * vlm.dtype.itemsize


def activation_bytes(vlm: VLM, *, checkpointing: bool, halved: bool = False) -> int:
    """The bytes of one token of a pass with gradients, for low-rank adapters on all linear layers; an upper estimate.

    A layer of width h, inner width m, a heads and g key-value heads of width d keeps, at c bytes a number: the inputs
    of both norms in float32 (8 h), those of the linear layers (c (2 h + a d + m)), queries, keys, values and output of
    attention (c (2 a d + 2 g d) + 4 a), and gate, its activation and the other half of the inner layer (3 c m). With
    checkpointing each layer keeps its input (c h), and one layer at a time all of the above. `halved` is a pass in
    bfloat16 over float32 weights.
    """
    layers, h, m, a, g, d = _sizes(vlm)
    c = 2 if halved else vlm.dtype.itemsize
    layer = 8 * h + c * (2 * h + a * d + m) + c * (2 * a * d + 2 * g * d) + 4 * a + 3 * c * m
    return layers * c * h + layer if checkpointing else layers * layer


def fitting_tokens(vlm: VLM, *, checkpointing: bool, halved: bool = False) -> int | None:
    """The tokens of a pass with gradients that fit the GPU's free memory; None on other devices.

    Reckoned as (0.8 x free - 12 bytes x trained weights) / `activation_bytes`: a float32 gradient and the two moments
    of AdamW are not there before the first step.
    """
    if vlm.device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(vlm.device)
    free += torch.cuda.memory_reserved(vlm.device) - torch.cuda.memory_allocated(vlm.device)
    trained = sum(weight.numel() for weight in vlm.model.parameters() if weight.requires_grad)
    return max(0, int(USABLE * free - 12 * trained)) // activation_bytes(
        vlm, checkpointing=checkpointing, halved=halved
    )


def _sizes(vlm: VLM) -> tuple[int, int, int, int, int, int]:
    """Layers, width, inner width (of all experts of a token), heads, key-value heads, width of a head."""
    config: Any = vlm.base.config.get_text_config()
    heads = int(config.num_attention_heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    inner = int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    experts = getattr(config, "num_experts_per_tok", None)
    of_expert = getattr(config, "moe_intermediate_size", None)
    if isinstance(experts, int) and isinstance(of_expert, int):
        inner = max(inner, experts * of_expert)
    return int(config.num_hidden_layers), int(config.hidden_size), inner, heads, groups, width


def in_parts(vlm: VLM, rows: Sequence[T], work: Callable[[Sequence[T]], R], *, remedy: str) -> list[R]:
    """The results of `work` on all rows at once or, where memory does not suffice, on parts of them, in order.

    Raises:
        InputError: a single row does not fit.
    """
    results: list[R] = []
    start, size = 0, len(rows)
    while start < len(rows):
        part = rows[start : start + size]
        result, failure = attempt(partial(work, part))
        if failure is None:
            results.append(result)  # type: ignore[arg-type]
            start += len(part)
        else:
            size = halve(vlm, len(part), failure, remedy=remedy)
    return results


def attempt(work: Callable[[], R]) -> tuple[R | None, str | None]:
    """The result of `work`, or the message of its error if memory did not suffice."""
    try:
        return work(), None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # The message alone: the error's traceback would hold the tensors of the failed pass.
        return None, str(error)


def halve(vlm: VLM, rows: int, failure: str, *, remedy: str) -> int:
    """Half of the number of rows that did not fit, after freeing what can be freed.

    Raises:
        InputError: it was one row.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if rows <= 1:
        missing = missing_bytes(failure)
        more = "" if missing is None else f" ({missing / 2**30:.2f} GiB are missing)"
        raise InputError(f"one row of {vlm.path} does not fit into the memory of {vlm.device}{more}; {remedy}")
    log.warning("out of memory with %d rows in a pass of %s; continuing with %d", rows, vlm.path, rows // 2)
    return rows // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def missing_bytes(message: str) -> int | None:
    """How much more memory than there was an allocation needed, from torch's message; None if it does not say."""
    wanted = re.search(rf"[Tt]ried to allocate {_NUMBER}", message)
    if wanted is None:
        return None
    free = re.search(rf"of which {_NUMBER} is free", message)
    found = _bytes(wanted) - (_bytes(free) if free else 0)
    return found if found > 0 else _bytes(wanted)


def _bytes(found: "re.Match[str]") -> int:
    return int(float(found[1]) * _UNITS[found[2]])
