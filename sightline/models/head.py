"""Log-probabilities of answer tokens from hidden states, in chunks: the matrix of all logits is never materialized.

A frozen head needs no second pass for gradients: d logp / d hidden is kept instead of logits, one vector per token.
Entropies of the token distributions, if requested, come from the same logits.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import MoeModelOutputWithPast

from sightline.errors import InputError
from sightline.models.encoding import EncodedPrefix, encode_answer, tokenize
from sightline.models.vlm import VLM, decoder_of, head_of
from sightline.models.ways.base import TokenScores
from sightline.records.rows import Span

CHUNK = 256  # answer tokens at a time: 32 MB of float32 logits for a vocabulary of 32,000

Head = Callable[[Tensor], Tensor]
log = logging.getLogger(__name__)


def token_logps(vlm: VLM, hidden: Float[Tensor, "token dim"], ids: Int[Tensor, "token"]) -> Float[Tensor, "token"]:
    """Log-softmax (float32, nats) of the head's logits for each hidden state, at the token that follows it."""
    return token_scores(vlm, hidden, ids).logps


def token_scores(
    vlm: VLM, hidden: Float[Tensor, "token dim"], ids: Int[Tensor, "token"], *, entropy: bool = False
) -> TokenScores:
    """As `token_logps`; with `entropy` also the entropy of each distribution, from the same logits."""
    trained = any(weight.requires_grad for weight in head_of(vlm.base).parameters())
    if not torch.is_grad_enabled() or not (hidden.requires_grad or trained):
        with torch.no_grad():
            logps, entropies = _in_chunks(vlm, hidden, ids, partial(_scores, entropy=entropy))
    elif trained:
        logps, entropies = _in_chunks(vlm, hidden, ids, partial(_recomputed, entropy=entropy))
    else:
        logps, entropies = _FrozenHead.apply(hidden, ids, vlm, entropy)  # type: ignore[no-untyped-call]
    return TokenScores(logps, entropies if entropy else None)


def token_entropy(logits: Float[Tensor, "token vocab"]) -> Float[Tensor, "token"]:
    """Entropy (nats) of the softmax of each row, without gradient."""
    with torch.no_grad():
        parts: Tensor = torch.special.entr(logits.softmax(-1))
        return parts.sum(-1)


def head_logits(vlm: VLM, hidden: Float[Tensor, "... dim"]) -> Float[Tensor, "... vocab"]:
    """The head's logits, with the scale and the soft cap of the model."""
    if vlm.way.head == OWN_HEAD:
        flat = _own_logits(vlm.base, hidden.reshape(1, -1, hidden.shape[-1]))
        return flat.reshape(*hidden.shape[:-1], flat.shape[-1])
    logits: Tensor = head_of(vlm.base)(hidden)
    text = vlm.base.config.get_text_config()
    if vlm.way.head:
        factor = getattr(text, vlm.way.head)
        logits = logits / factor if vlm.way.head in DIVISORS else logits * factor
    cap = getattr(text, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


#: Keys of language models' configs that scale logits before the soft cap, and those of them that divide.
SCALES = ("output_multiplier", "logits_scaling", "logit_scale", "logits_scale", "lm_head_multiplier")
DIVISORS = frozenset({"logits_scaling"})
#: The value of `Way.head` for logits by the model's own forward, with the decoder's output replaced.
OWN_HEAD = "own"


def _own_logits(base: Any, hidden: Float[Tensor, "1 token dim"]) -> Float[Tensor, "token vocab"]:
    decoder = decoder_of(base)
    output = MoeModelOutputWithPast(last_hidden_state=cast(Any, hidden))  # its router logits are None
    with _replaced(decoder, lambda *_, **__: output):
        ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        logits: Tensor = base(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return logits[0]


@contextlib.contextmanager
def _replaced(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Context in which a module computes something else."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def find_head(vlm: VLM, hidden: Float[Tensor, "token dim"], logits: Float[Tensor, "token vocab"]) -> str:
    """The `Way.head` with which hidden states give the logits that the model computed itself.

    Raises:
        ValueError: none does.
    """
    text = vlm.base.config.get_text_config()
    scales = [name for name in SCALES if isinstance(getattr(text, name, None), int | float)]
    tolerance = 10 * torch.finfo(vlm.dtype).eps * float(logits.abs().max()) + 1e-6
    for name in ("", *scales, OWN_HEAD):
        way = replace(vlm.way, head=name)  # type: ignore[type-var]  # ways are dataclasses
        try:
            found = head_logits(replace(vlm, way=way), hidden)
        except Exception as error:  # noqa: BLE001 - the forward is foreign code
            log.debug("head %r: %s", name, error)
            continue
        if found.shape == logits.shape and float((found - logits).abs().max()) <= tolerance:
            return name
    raise ValueError("the head's logits are not those of the model")


#: Log-probs and entropies of a chunk; the latter are empty if not requested.
Both = tuple[Tensor, Tensor]


def _in_chunks(vlm: VLM, hidden: Tensor, ids: Tensor, score: Callable[[VLM, Tensor, Tensor], Both]) -> Both:
    chunks = zip(hidden.split(CHUNK), ids.split(CHUNK), strict=True)
    logps, entropies = zip(*(score(vlm, some, their_ids) for some, their_ids in chunks), strict=True)
    return torch.cat(logps), torch.cat(entropies)


def _scores(vlm: VLM, hidden: Tensor, ids: Tensor, *, entropy: bool) -> Both:
    logits = head_logits(vlm, hidden).float()
    logps = -functional.cross_entropy(logits, ids, reduction="none")
    return logps, token_entropy(logits) if entropy else logps.new_empty(0)


def _recomputed(vlm: VLM, hidden: Tensor, ids: Tensor, *, entropy: bool) -> Both:
    return cast(Both, checkpoint(_scores, vlm, hidden, ids, entropy=entropy, use_reentrant=False))


class _FrozenHead(torch.autograd.Function):
    """Forward stores the gradient of each token's log-prob; backward scales it."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, ids: Tensor, vlm: VLM, entropy: bool) -> Both:
        def score(vlm: VLM, some: Tensor, their_ids: Tensor) -> Both:
            with torch.enable_grad():
                leaf = some.detach().requires_grad_()
                logps, entropies = _scores(vlm, leaf, their_ids, entropy=entropy)
                slopes.append(torch.autograd.grad(logps.sum(), leaf)[0])
            return logps.detach(), entropies

        slopes: list[Tensor] = []
        logps, entropies = _in_chunks(vlm, hidden, ids, score)
        ctx.save_for_backward(torch.cat(slopes))
        ctx.mark_non_differentiable(entropies)
        return logps, entropies

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return (gradients[0][:, None] * slopes).to(slopes.dtype), None, None, None


def tokens_within(vlm: VLM, prefix: EncodedPrefix, answer: str, spans: Sequence[Span]) -> Bool[Tensor, "token"]:
    """True for each token of the whole answer that overlaps one of `spans`, ignoring its leading white space.

    End-of-turn tokens and empty spans overlap nothing.

    Raises:
        InputError: `encode_answer` refuses the answer; a span is outside the answer; the tokenizer gives no offsets.
    """
    wrong = next((span for span in spans if not 0 <= span[0] <= span[1] <= len(answer)), None)
    if wrong is not None:
        raise InputError(f"span {wrong} is outside the {len(answer)} characters of the answer {answer[:60]!r}")
    if not vlm.tokenizer.is_fast:
        raise InputError(f"the tokenizer of {vlm.path} gives no character offsets; save a fast one (tokenizer.json)")
    row = encode_answer(vlm, prefix, answer)
    begin = len(prefix.text) + len(prefix.lead)
    text = prefix.text + (prefix.lead + answer if answer else "") + prefix.end
    offsets = tokenize(vlm, text, return_offsets_mapping=True)["offset_mapping"][len(prefix.text_ids) :]
    found = torch.zeros(len(row.ids) - row.start, dtype=torch.bool)
    for place, (start, end) in enumerate(offsets):
        while start < end - 1 and text[start].isspace():  # many tokens include the space before their word
            start += 1
        found[place] = any(max(start, begin + first) < min(end, begin + last) for first, last in spans)
    return found
