"""Scoring of one row at a time with Transformers' own forward: the reference that all ways are tested against.

Each answer is a separate row with its prefix and its images.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from sightline.errors import InputError
from sightline.models.encoding import EncodedPrefix, model_inputs
from sightline.models.head import token_entropy
from sightline.models.packing import Ids, PackRow
from sightline.models.recording import changed_inputs, hide
from sightline.models.vlm import VLM
from sightline.models.ways.base import TokenScores


def unbatched_logps(vlm: VLM, rows: Sequence[PackRow], hiding: str | None = None) -> Float[Tensor, "answer_token"]:
    """Compute log-probs (float32) of all answer tokens, in order; `hiding` is `Way.hiding`."""
    return torch.cat([_logps_of(*_row_logits(vlm, row, answer, hiding)) for row in rows for answer in row.answers])


def unbatched_scores(vlm: VLM, rows: Sequence[PackRow], hiding: str | None = None) -> TokenScores:
    """Compute log-probs and entropies (float32) of all answer tokens, in order."""
    results = [_row_logits(vlm, row, answer, hiding) for row in rows for answer in row.answers]
    logps = [_logps_of(logits, ids, count) for logits, ids, count in results]
    entropies = [token_entropy(logits[-count - 1 : -1].float()) for logits, _, count in results]
    return TokenScores(torch.cat(logps), torch.cat(entropies))


def unbatched_states(
    vlm: VLM, rows: Sequence[PackRow], hiding: str | None = None
) -> tuple[Float[Tensor, "answer_token dim"], Float[Tensor, "answer dim"], Float[Tensor, "answer_token"]]:
    """Compute last hidden states before each answer token and at each answer's last, and log-probs, in order."""
    results = [_row_states(vlm, row, answer, hiding) for row in rows for answer in row.answers]
    before, last, logps = zip(*results, strict=True)
    return torch.cat(before), torch.stack(last), torch.cat(logps)


def unbatched_logits(
    vlm: VLM, row: PackRow, answer: Ids, hiding: str | None = None
) -> Float[Tensor, "answer_token vocab"]:
    """The logits (float32) that predict each token of an answer."""
    logits, _, count = _row_logits(vlm, row, answer, hiding)
    return logits[-count - 1 : -1].float()


def unbatched_inputs(vlm: VLM, prefix: EncodedPrefix, answer: Ids) -> dict[str, Any]:
    """The keyword arguments of the model's forward for one row."""
    ids = torch.tensor((*prefix.ids, *answer), device=vlm.device)[None]
    types = {
        name: functional.pad(values, (0, len(answer)), value=vlm.family.answer_type).to(vlm.device)
        for name, values in prefix.token_types.items()
    }
    images = model_inputs(vlm, prefix.images)
    if PER_TOKEN in images:
        images[PER_TOKEN] = continued_mask(images[PER_TOKEN], len(answer))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **types, **images}


#: The processor's mask of the images that each token attends to by cross-attention, as in Llama 3.2 Vision.
PER_TOKEN = "cross_attention_mask"


def continued_mask(mask: Tensor, tokens: int) -> Tensor:
    """A cross-attention mask for more tokens, which see what the last one sees."""
    return torch.cat([mask, mask[:, -1:].expand(-1, tokens, *mask.shape[2:])], dim=1)


@contextlib.contextmanager
def hidden_tokens(vlm: VLM, prefix: EncodedPrefix, hidden: frozenset[int], hiding: str | None) -> Iterator[None]:
    """Context in which the model's forward of one row that begins with `prefix` does not see these image tokens.

    Raises:
        InputError: tokens are to be hidden from a model for which no way of hiding is proved.
    """
    if not hidden:
        yield
        return
    if hiding is None:
        raise InputError(f"image tokens of {vlm.path} cannot be hidden: no way of hiding them is proved for its type")
    is_image = torch.tensor(prefix.ids) == vlm.image_token_id
    with changed_inputs(vlm.base, lambda kwargs: hide(kwargs, is_image, hidden, hiding)):
        yield


def _row_logits(
    vlm: VLM, row: PackRow, answer: Ids, hiding: str | None
) -> tuple[Float[Tensor, "token vocab"], Tensor, int]:
    """Logits and ids of the whole row, and the length of the answer at its end."""
    inputs = unbatched_inputs(vlm, row.prefix, answer)
    with hidden_tokens(vlm, row.prefix, row.hidden, hiding):
        return vlm.model(**inputs, use_cache=False).logits[0], inputs["input_ids"][0], len(answer)


def _row_states(vlm: VLM, row: PackRow, answer: Ids, hiding: str | None) -> tuple[Tensor, Tensor, Tensor]:
    inputs = unbatched_inputs(vlm, row.prefix, answer)
    with hidden_tokens(vlm, row.prefix, row.hidden, hiding):
        output = vlm.model(**inputs, use_cache=False, output_hidden_states=True)
    hidden = output.hidden_states[-1][0]
    return hidden[-len(answer) - 1 : -1], hidden[-1], _logps_of(output.logits[0], inputs["input_ids"][0], len(answer))


def _logps_of(logits: Float[Tensor, "token vocab"], ids: Tensor, count: int) -> Float[Tensor, "answer_token"]:
    """Log-probs of the last `count` tokens."""
    return -functional.cross_entropy(logits[-count - 1 : -1].float(), ids[-count:], reduction="none")
