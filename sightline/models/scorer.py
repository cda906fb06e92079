"""Log-probabilities of answers given their prefixes, token by token, differentiable: the plain forward.

Each answer is a row of its own, with its prefix; sharing the prefix would be another scorer behind the same seam. What
to do with the numbers is `losses`; how a row is made is `encoding`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from sightline.models.batching import collate, image_inputs
from sightline.models.encoding import encode_answer, encode_prefix
from sightline.models.loading import VLM
from sightline.models.prompts import Scored


@dataclass(frozen=True)
class AnswerLogps:
    """Log-probabilities (nats, float32) of answer tokens, the end of turn included.

    Tokens stand from the left; `mask` is False, and the value 0, behind an answer's last.
    """

    values: Float[Tensor, "item answer token"]
    mask: Bool[Tensor, "item answer token"]

    def sums(self) -> Float[Tensor, "item answer"]:
        """Log-probability of each whole answer."""
        return self.values.sum(-1)

    def lengths(self) -> Int[Tensor, "item answer"]:
        """Tokens of each answer, the end of turn included."""
        return self.mask.sum(-1)


def answer_logps(vlm: VLM, items: Sequence[Scored], *, autocast: bool = False) -> AnswerLogps:
    """Score every token of every answer, given images, prompt and the answer so far, in one forward pass.

    All items have the same number K of answers; memory grows with items x K x the longest row. Gradients flow to
    whatever in the model requires them. With `autocast` the model computes in bfloat16 where torch deems it safe; the
    log-softmax is float32 always.

    Raises:
        InputError: a prefix or an answer that `encoding` refuses.
        ValueError: no items, or items with different numbers of answers.
    """
    counts = {len(item.answers) for item in items}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"all items must have the same number of answers, at least one; got {sorted(counts)}")
    rows = []
    for item in items:
        prefix = encode_prefix(vlm, item.prefix)
        rows += [encode_answer(vlm, prefix, answer) for answer in item.answers]
    batch = collate(vlm, rows, pad="right")
    starts = torch.tensor([row.start for row in rows], device=vlm.device)
    answers = batch.real & (batch.positions >= starts[:, None])
    # The logits that predict a token stand one place before it; the head runs at these places only.
    predicting = answers.roll(-1, dims=1)
    with torch.autocast(vlm.device.type, torch.bfloat16, enabled=autocast):
        logits = vlm.model(
            input_ids=batch.ids,
            attention_mask=batch.real.long(),
            position_ids=batch.positions,
            logits_to_keep=predicting,
            use_cache=False,
            **image_inputs(vlm, rows),
        ).logits
    logps = _token_logps(logits, batch.ids[answers])
    shape = (len(items), counts.pop(), int(answers.sum(1).max()))
    mask = torch.arange(shape[-1], device=vlm.device) < answers.sum(1)[:, None]
    values = torch.zeros_like(mask, dtype=logps.dtype).masked_scatter(mask, logps)
    return AnswerLogps(values.view(shape), mask.view(shape))


def _token_logps(logits: Float[Tensor, "token vocab"], ids: Int[Tensor, "token"]) -> Float[Tensor, "token"]:
    """Log-softmax of `logits` at `ids`, in float32."""
    return -functional.cross_entropy(logits.float(), ids, reduction="none")
