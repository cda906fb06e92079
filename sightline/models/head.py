"""Log-probabilities of answer tokens from hidden states, in chunks: the table of all logits never exists.

Frozen, the head needs no second pass for gradients: d logp / d hidden is kept instead of logits, one vector a token.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sightline.models.vlm import VLM

CHUNK = 256  # answer tokens at a time: 32 MB of float32 logits for a vocabulary of 32,000

Head = Callable[[Tensor], Tensor]


def token_logps(vlm: VLM, hidden: Float[Tensor, "token dim"], ids: Int[Tensor, "token"]) -> Float[Tensor, "token"]:
    """Log-softmax (float32, nats) of the head's logits of each hidden state at the token that followed it."""
    trained = any(weight.requires_grad for weight in vlm.base.get_output_embeddings().parameters())
    if not torch.is_grad_enabled() or not (hidden.requires_grad or trained):
        with torch.no_grad():
            return _in_chunks(vlm, hidden, ids, _logps)
    if trained:
        return _in_chunks(vlm, hidden, ids, _recomputed)
    return cast(Tensor, _FrozenHead.apply(hidden, ids, vlm))  # type: ignore[no-untyped-call]


def logits_of(vlm: VLM, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... vocab"]:
    """The head, with the family's soft cap where it has one."""
    logits: Tensor = vlm.base.get_output_embeddings()(hidden)
    cap = getattr(vlm.base.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _in_chunks(vlm: VLM, hidden: Tensor, ids: Tensor, score: Callable[[VLM, Tensor, Tensor], Tensor]) -> Tensor:
    pairs = zip(hidden.split(CHUNK), ids.split(CHUNK), strict=True)
    return torch.cat([score(vlm, some, their_ids) for some, their_ids in pairs])


def _logps(vlm: VLM, hidden: Tensor, ids: Tensor) -> Tensor:
    return -functional.cross_entropy(logits_of(vlm, hidden).float(), ids, reduction="none")


def _recomputed(vlm: VLM, hidden: Tensor, ids: Tensor) -> Tensor:
    return cast(Tensor, checkpoint(_logps, vlm, hidden, ids, use_reentrant=False))


class _FrozenHead(torch.autograd.Function):
    """Forward keeps the gradient of each token's log-prob; backward scales it."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, ids: Tensor, vlm: VLM) -> Tensor:
        values, slopes = [], []
        for some, their_ids in zip(hidden.split(CHUNK), ids.split(CHUNK), strict=True):
            with torch.enable_grad():
                leaf = some.detach().requires_grad_()
                logps = _logps(vlm, leaf, their_ids)
                slopes.append(torch.autograd.grad(logps.sum(), leaf)[0])
            values.append(logps.detach())
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return (gradients[0][:, None] * slopes).to(slopes.dtype), None, None
