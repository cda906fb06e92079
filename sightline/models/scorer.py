"""Differentiable log-probabilities of answer tokens given their prefixes; each prefix is computed once for its answers.

How rows are computed is the model's way (`models.ways`). `losses` uses the numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.models.attention import AttentionLayout, decoder_arguments
from sightline.models.device import in_format, to_device
from sightline.models.encoding import encode_answer, encode_prefix
from sightline.models.features import image_features
from sightline.models.memory import SCORING, in_parts
from sightline.models.packing import Packed, PackRow
from sightline.models.requests import ScoreRequest
from sightline.models.soundness import nan_error
from sightline.models.vlm import VLM, decoder_of
from sightline.models.ways.base import AnswerStates


@dataclass(frozen=True)
class AnswerLogps:
    """Log-probabilities (nats, float32) of answer tokens, including the end of turn.

    Rows are padded on the right, where `mask` is False and the value 0.
    """

    values: Float[Tensor, "item answer token"]
    mask: Bool[Tensor, "item answer token"]

    def sums(self) -> Float[Tensor, "item answer"]:
        """Log-probability of each whole answer."""
        return self.values.sum(-1)

    def lengths(self) -> Int[Tensor, "item answer"]:
        """Number of tokens of each answer, including the end of turn."""
        return self.mask.sum(-1)


def answer_logps(vlm: VLM, items: Sequence[ScoreRequest], *, autocast: bool = False) -> AnswerLogps:
    """Score every token of every answer, given images, prompt and the answer so far, in one forward pass.

    All items must have the same number K of answers. Gradients flow to all weights that require them. With `autocast`
    the model computes in bfloat16 where torch considers it safe; the log-softmax is always float32.

    Returns:
        Log-probs in nats, `values[item, answer, token]`, and the mask of those that are not padding.

    Raises:
        InputError: `encoding` refuses a prefix or an answer; without gradients, a log-prob is NaN. With gradients the
            training loop checks for NaN, as it knows the step.
        ValueError: no items, or items with different numbers of answers.

    Examples:
        >>> prefix = sl.Prefix((image,), "Is there a cup in the image?")
        >>> logps = sl.answer_logps(vlm, [sl.ScoreRequest(prefix, ("Yes.", "No."))])
        >>> yes, no = logps.sums()[0]
    """
    counts = {len(item.answers) for item in items}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"all items must have the same number of answers, at least one; got {sorted(counts)}")
    values, mask = flat_logps(vlm, items, autocast=autocast)
    shape = (len(items), counts.pop(), values.shape[-1])
    return AnswerLogps(values.view(shape), mask.view(shape))


def flat_logps(
    vlm: VLM, items: Sequence[ScoreRequest], *, autocast: bool = False
) -> tuple[Float[Tensor, "answer token"], Bool[Tensor, "answer token"]]:
    """As `answer_logps`, for items with any number of answers: values and mask with one row per answer, in order."""
    rows = [encode_row(vlm, item) for item in items]
    with in_format(vlm, autocast):
        logps = _in_parts(vlm, rows, score_rows)
    _require_numbers(vlm, items, rows, logps)
    mask = _mask(vlm, rows)
    return _table(logps, mask), mask


class FlatScores(NamedTuple):
    """As `flat_logps`, with the entropy (nats, no gradient) of the distribution of each token."""

    logps: Float[Tensor, "answer token"]
    entropy: Float[Tensor, "answer token"]
    mask: Bool[Tensor, "answer token"]


def flat_scores(vlm: VLM, items: Sequence[ScoreRequest], *, autocast: bool = False) -> FlatScores:
    """Compute log-probs and entropies in one forward pass; errors as in `answer_logps`."""
    rows = [encode_row(vlm, item) for item in items]
    with in_format(vlm, autocast):
        logps, entropy = _in_parts(vlm, rows, _stacked_scores)
        entropy = entropy.detach()  # stacked with log-probs that have gradients
    _require_numbers(vlm, items, rows, logps)
    mask = _mask(vlm, rows)
    return FlatScores(_table(logps, mask), _table(entropy, mask), mask)


def answer_states(vlm: VLM, rows: Sequence[PackRow], *, logps: bool = False) -> AnswerStates:
    """Compute hidden states and, with `logps`, log-probs of the rows' answers in one forward pass; differentiable."""
    return vlm.way.states(vlm, rows, logps=logps)


def encode_row(vlm: VLM, item: ScoreRequest) -> PackRow:
    """Encode a prefix and its answers as ids, each answer with its end of turn.

    Raises:
        InputError: `encoding` refuses the prefix or an answer.
    """
    prefix = encode_prefix(vlm, item.prefix)
    answers = [encode_answer(vlm, prefix, answer) for answer in item.answers]
    return PackRow(prefix, tuple(answer.ids[answer.start :] for answer in answers))


def hidden_states(vlm: VLM, packed: Packed, layout: AttentionLayout) -> Float[Tensor, "token dim"]:
    """The language model's last hidden states of a packed sequence."""
    features = _features(vlm, packed)
    embedded = vlm.family.embed(vlm.base, packed.ids, packed.is_image, features)
    output = decoder_of(vlm.base)(
        inputs_embeds=embedded[None],
        position_ids=vlm.family.decoder_positions(packed.positions[:, None]),
        **decoder_arguments(vlm.base, layout),
        **vlm.family.decoder_inputs(packed.is_image, features),
    )
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


def _in_parts(vlm: VLM, rows: Sequence[PackRow], compute: Callable[[VLM, Sequence[PackRow]], Tensor]) -> Tensor:
    """The scores of all rows, their tokens last; without gradients in several passes where memory does not suffice.

    With gradients the training loop repeats the step, as it knows what it has added up.
    """
    if torch.is_grad_enabled():
        return compute(vlm, rows)
    return torch.cat(in_parts(vlm, rows, lambda part: compute(vlm, part), remedy=SCORING), dim=-1)


def _stacked_scores(vlm: VLM, rows: Sequence[PackRow]) -> Float[Tensor, "2 answer_token"]:
    """Log-probs and entropies of all answer tokens of the rows."""
    logps, entropy = vlm.way.scores(vlm, rows, entropy=True)
    if entropy is None:
        raise ValueError("the scores have no entropies")
    return torch.stack((logps, entropy))


def score_rows(vlm: VLM, rows: Sequence[PackRow]) -> Float[Tensor, "answer_token"]:
    """Log-probs (float32) of all answer tokens of the rows, in order."""
    return vlm.way.scores(vlm, rows).logps


def _require_numbers(
    vlm: VLM, items: Sequence[ScoreRequest], rows: Sequence[PackRow], logps: Float[Tensor, "answer_token"]
) -> None:
    if torch.is_grad_enabled() or not logps.isnan().any():
        return
    lengths = torch.tensor([sum(map(len, row.answers)) for row in rows])
    first = int(logps.isnan().nonzero()[0])
    raise nan_error(vlm.path, items[int((lengths.cumsum(0) <= first).sum())].prefix)


def _mask(vlm: VLM, rows: Sequence[PackRow]) -> Bool[Tensor, "answer token"]:
    """True on tokens, False on padding, with one row per answer."""
    lengths = torch.tensor([len(answer) for row in rows for answer in row.answers])
    return to_device(torch.arange(int(lengths.max())) < lengths[:, None], vlm.device)


def _table(values: Float[Tensor, "answer_token"], mask: Bool[Tensor, "answer token"]) -> Float[Tensor, "answer token"]:
    return torch.zeros_like(mask, dtype=values.dtype).masked_scatter(mask, values)


def _features(vlm: VLM, packed: Packed) -> dict[str, Tensor] | None:
    """Features of all images of the sequence, without those of hidden tokens."""
    parts = [each for each in image_features(vlm, packed.images, packed.shown) if each is not None]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else None
