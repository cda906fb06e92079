"""From characters of an answer to its tokens: which tokens say what lies in given spans.

It goes by the offsets of the tokenizer, over the same text that `encoding` turns into ids. What a span means is the
affair of whoever gives it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from sightline.errors import InputError
from sightline.models.encoding import EncodedPrefix, encode_answer, tokenize
from sightline.models.vlm import VLM
from sightline.records.rows import Span


def tokens_within(vlm: VLM, prefix: EncodedPrefix, answer: str, spans: Sequence[Span]) -> Bool[Tensor, "token"]:
    """True for each token of the whole answer that shares a character with one of `spans`, white space before it aside.

    The tokens that end the turn share none. An empty span holds no token.

    Raises:
        InputError: what `encode_answer` refuses; a span that leaves the answer; a tokenizer without offsets.
    """
    wrong = next((span for span in spans if not 0 <= span[0] <= span[1] <= len(answer)), None)
    if wrong is not None:
        raise InputError(f"span {wrong} is not within the {len(answer)} characters of the answer {answer[:60]!r}")
    if not vlm.tokenizer.is_fast:
        raise InputError(f"the tokenizer of {vlm.path} gives no character offsets; save a fast one (tokenizer.json)")
    row = encode_answer(vlm, prefix, answer)
    begin = len(prefix.text) + len(prefix.lead)
    text = prefix.text + (prefix.lead + answer if answer else "") + prefix.end
    offsets = tokenize(vlm, text, return_offsets_mapping=True)["offset_mapping"][len(prefix.text_ids) :]
    found = torch.zeros(len(row.ids) - row.start, dtype=torch.bool)
    for place, (start, end) in enumerate(offsets):
        while start < end - 1 and text[start].isspace():  # many tokens bring the space before their word
            start += 1
        found[place] = any(max(start, begin + first) < min(end, begin + last) for first, last in spans)
    return found
