"""Teacher forcing: the token that the model would put at every place of a given answer, the true ones before it.

One pass over the packed rows gives the distributions at all places; a draw never sees another draw. It is how POVID
distorts answers (arXiv 2402.11411); writing freely is `sampler`, scoring what is given `scorer`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.models.attention import PackedLayout
from sightline.models.device import in_format
from sightline.models.encoding import EncodedPrefix, encode_answer, encode_prefill, encode_prefix
from sightline.models.head import logits_of
from sightline.models.packing import Ids, PackRow, pack
from sightline.models.requests import Prefix
from sightline.models.sampler import LOOK_BACK, choose_tokens
from sightline.models.scorer import hidden_states
from sightline.models.soundness import not_a_number
from sightline.models.unbatched import plain_inputs
from sightline.models.vlm import VLM, evaluating

#: Answer tokens whose logits exist at a time; choosing takes some copies of them in float64.
CHUNK = 64


@dataclass(frozen=True)
class Forcing:
    """A prefix with the answer that is forced; `seed` decides what is drawn, whatever batch it shares."""

    prefix: Prefix
    answer: str
    seed: int = 0


@dataclass(frozen=True)
class Forced:
    """The drawn tokens with the kept end of turn, as ids and as text, beside the true ones.

    The text may be cut into other tokens when it is read again.
    """

    ids: Ids
    true: Ids
    text: str

    @property
    def changed(self) -> int:
        """Places at which the drawn token is not the true one."""
        return sum(one != other for one, other in zip(self.ids, self.true, strict=True))


@dataclass(frozen=True)
class _Row:
    source: Prefix
    prefix: EncodedPrefix
    true: Ids
    free: int  # tokens of the text; behind them the end of turn
    seed: int


def forced_tokens(
    vlm: VLM,
    asked: Sequence[Forcing],
    *,
    temperature: float,
    top_p: float = 1.0,
    batch_size: int,
    autocast: bool = False,
) -> list[Forced]:
    """Draw (or at temperature 0 take the likeliest of) every answer's tokens, `batch_size` rows in one pass.

    What ends the turn stays: its tokens are never drawn. A drawn token that no text can hold, one that ends a turn or
    another special one, gives way to the likeliest that is none.

    Raises:
        InputError, RowTooLong: a prefix or an answer that `encoding` refuses; a row whose logits are NaN.
    """
    made: list[Forced] = []
    with evaluating(vlm):
        for start in range(0, len(asked), batch_size):
            rows = [_encode(vlm, one) for one in asked[start : start + batch_size]]
            with in_format(vlm, autocast):
                drawn = iter(_drawn(vlm, rows, temperature, top_p))
            for row in rows:
                ids = tuple(next(drawn) for _ in row.true)
                ids = ids[: row.free] + row.true[row.free :]
                made.append(Forced(ids, row.true, _text(vlm, row.prefix, ids[: row.free])))
    return made


def forced_logits(vlm: VLM, rows: Sequence[PackRow]) -> Iterator[Float[Tensor, "answer_token vocab"]]:
    """The logits (float32) from which each answer token of the rows would be drawn, in order, some at a time.

    A family without a proof is run row by row.
    """
    if not vlm.proved:
        for row in rows:
            for answer in row.answers:
                logits = vlm.model(**plain_inputs(vlm, row.prefix, answer), use_cache=False).logits
                yield logits[0, -len(answer) - 1 : -1].float()
        return
    packed = pack(vlm, rows)
    hidden = hidden_states(vlm, packed, PackedLayout(packed))
    for some in hidden[packed.predicting()].split(CHUNK):
        yield logits_of(vlm, some).float()


def _encode(vlm: VLM, asked: Forcing) -> _Row:
    prefix = encode_prefix(vlm, asked.prefix)
    whole, open_ended = encode_answer(vlm, prefix, asked.answer), encode_prefill(vlm, prefix, asked.answer)
    true, text = whole.ids[whole.start :], open_ended.ids[open_ended.start :]
    # A template may put more than one token behind the text, and may melt the first of them with its last.
    same = [one == other for one, other in zip(true, text, strict=False)]
    return _Row(asked.prefix, prefix, true, [*same, False].index(False), asked.seed)


def _drawn(vlm: VLM, rows: Sequence[_Row], temperature: float, top_p: float) -> list[int]:
    """A token for every place of every answer."""
    numbers = [np.random.Generator(np.random.Philox(row.seed)).random(len(row.true)) for row in rows]
    uniforms = torch.from_numpy(np.concatenate(numbers)).to(vlm.device)
    barred: Tensor | None = None
    tokens: list[int] = []
    for logits in forced_logits(vlm, [PackRow(row.prefix, (row.true,)) for row in rows]):
        if logits.isnan().any():
            ends = np.cumsum([len(row.true) for row in rows])
            first = len(tokens) + int(logits.isnan().any(-1).nonzero()[0])
            raise not_a_number(vlm.path, rows[int((ends <= first).sum())].source)
        some = uniforms[len(tokens) : len(tokens) + len(logits)]
        chosen = choose_tokens(logits, some, temperature=temperature, top_p=top_p)
        barred = _barred(vlm, logits.shape[-1]) if barred is None else barred
        tokens += torch.where(barred[chosen], logits.masked_fill(barred, -torch.inf).argmax(-1), chosen).tolist()
    return tokens


def _barred(vlm: VLM, vocabulary: int) -> Bool[Tensor, "vocab"]:
    """Tokens that no text can hold: special ones, and rows of the head that stand for none."""
    added = {number for number, token in vlm.tokenizer.added_tokens_decoder.items() if token.special}
    special = torch.tensor(sorted({*added, *vlm.tokenizer.all_special_ids, *vlm.end_ids}))
    numbers = torch.arange(vocabulary)
    return (torch.isin(numbers, special) | (numbers >= len(vlm.tokenizer))).to(vlm.device)


def _text(vlm: VLM, prefix: EncodedPrefix, ids: Ids) -> str:
    """The ids as text: decoded together with the end of what they follow, which is then taken off."""
    context = list(prefix.text_ids[-LOOK_BACK:])
    before, whole = (
        vlm.tokenizer.decode(told, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for told in (context, [*context, *ids])
    )
    text: str = whole[len(before) :].removeprefix(prefix.lead)
    return text
