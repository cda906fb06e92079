"""Teacher-forced sampling: the token that the model predicts at every place of a given answer, given the true ones.

One pass over packed rows gives the distributions at all places; a drawn token never conditions another. POVID distorts
answers in this way (arXiv 2402.11411). `sampler` generates freely, `scorer` scores given answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.models.device import in_format, read_values, to_device
from sightline.models.encoding import EncodedPrefix, encode_answer, encode_prefill, encode_prefix
from sightline.models.memory import SCORING, in_parts
from sightline.models.packing import Ids, PackRow
from sightline.models.requests import Prefix
from sightline.models.sampler import choose_tokens
from sightline.models.soundness import nan_error
from sightline.models.stopping import continuation_text
from sightline.models.vlm import VLM, evaluating


@dataclass(frozen=True)
class ForcingRequest:
    """A prefix with the answer to force; `seed` alone decides the drawn tokens, whatever the batch."""

    prefix: Prefix
    answer: str
    seed: int = 0


@dataclass(frozen=True)
class ForcedAnswer:
    """The drawn tokens, followed by the true end of turn, as ids and as text, with the true ids.

    Tokenizing the text may give other tokens.
    """

    ids: Ids
    true: Ids
    text: str

    @property
    def changed(self) -> int:
        """The number of places at which the drawn token differs from the true one."""
        return sum(one != other for one, other in zip(self.ids, self.true, strict=True))


@dataclass(frozen=True)
class _Row:
    source: Prefix
    prefix: EncodedPrefix
    true: Ids
    free: int  # tokens of the text, without the end of turn
    seed: int


def forced_tokens(
    vlm: VLM,
    requests: Sequence[ForcingRequest],
    *,
    temperature: float,
    top_p: float = 1.0,
    batch_size: int,
    autocast: bool = False,
) -> list[ForcedAnswer]:
    """Draw every answer's tokens (the likeliest ones at temperature 0), `batch_size` rows per pass.

    The tokens that end the turn are kept and not drawn. A drawn special token, such as one that ends a turn, is
    replaced by the likeliest token that is not special.

    Raises:
        InputError, RowTooLong: `encoding` refuses a prefix or an answer; the logits of a row are NaN.
    """
    results: list[ForcedAnswer] = []
    with evaluating(vlm):
        for start in range(0, len(requests), batch_size):
            rows = [_encode(vlm, one) for one in requests[start : start + batch_size]]
            with in_format(vlm, autocast):
                parts = in_parts(vlm, rows, lambda part: _drawn(vlm, part, temperature, top_p), remedy=SCORING)
            drawn: Iterator[int] = chain.from_iterable(parts)
            for row in rows:
                ids = tuple(next(drawn) for _ in row.true)
                ids = ids[: row.free] + row.true[row.free :]
                results.append(ForcedAnswer(ids, row.true, _text(vlm, row.prefix, ids[: row.free])))
    return results


def forced_logits(vlm: VLM, rows: Sequence[PackRow]) -> Iterator[Float[Tensor, "answer_token vocab"]]:
    """Yield the logits (float32) that predict each answer token of the rows, in order, in chunks."""
    return vlm.way.logits(vlm, rows)


def _encode(vlm: VLM, request: ForcingRequest) -> _Row:
    prefix = encode_prefix(vlm, request.prefix)
    whole, open_ended = encode_answer(vlm, prefix, request.answer), encode_prefill(vlm, prefix, request.answer)
    true, text = whole.ids[whole.start :], open_ended.ids[open_ended.start :]
    # A template may end a turn with several tokens, and the first may merge with the last one of the text.
    same = [one == other for one, other in zip(true, text, strict=False)]
    return _Row(request.prefix, prefix, true, [*same, False].index(False), request.seed)


def _drawn(vlm: VLM, rows: Sequence[_Row], temperature: float, top_p: float) -> list[int]:
    """Draw a token for every place of every answer."""
    numbers = [np.random.Generator(np.random.Philox(row.seed)).random(len(row.true)) for row in rows]
    uniforms = to_device(torch.from_numpy(np.concatenate(numbers)), vlm.device)
    barred: Tensor | None = None
    tokens: list[int] = []
    for logits in forced_logits(vlm, [PackRow(row.prefix, (row.true,)) for row in rows]):
        broken = logits.amax(-1).isnan()  # NaN in a row is its maximum
        some = uniforms[len(tokens) : len(tokens) + len(logits)]
        chosen = choose_tokens(logits, some, temperature=temperature, top_p=top_p)
        barred = _barred(vlm, logits.shape[-1]) if barred is None else barred
        chosen = torch.where(barred[chosen.clamp(max=len(barred) - 1)], _likeliest(logits, barred), chosen)
        read = read_values(chosen.masked_fill(broken, -1))
        if -1 in read:
            ends = np.cumsum([len(row.true) for row in rows])
            first = len(tokens) + read.index(-1)
            raise nan_error(vlm.path, rows[int((ends <= first).sum())].source)
        tokens += read
    return tokens


def _likeliest(logits: Float[Tensor, "token vocab"], barred: Bool[Tensor, "vocab"]) -> Int[Tensor, "token"]:
    """The likeliest token that may be drawn."""
    return logits.masked_fill(barred, -torch.inf).argmax(-1)


def _barred(vlm: VLM, vocabulary: int) -> Bool[Tensor, "vocab"]:
    """True for ids that must not be drawn: special tokens, and rows of the head without a token."""
    added = {number for number, token in vlm.tokenizer.added_tokens_decoder.items() if token.special}
    special = torch.tensor(sorted({*added, *vlm.tokenizer.all_special_ids, *vlm.end_ids}))
    numbers = torch.arange(vocabulary)
    return (torch.isin(numbers, special) | (numbers >= len(vlm.tokenizer))).to(vlm.device)


def _text(vlm: VLM, prefix: EncodedPrefix, ids: Ids) -> str:
    """The ids as text, decoded with the tokens before them, whose text is then removed."""
    return continuation_text(vlm.tokenizer, prefix.text_ids, ids, prefix.lead)
