"""Scoring layout of a pair: its answers after its own prefix and after others, as the losses' needs require.

It groups answers by prefix and sorts the numbers into `losses.types.PairLogps`; the forward pass is in `models.scorer`.
`reference_cache` caches a frozen model's numbers, `preference` combines both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.losses.types import PairLogps, Requirement
from sightline.models.device import to_device
from sightline.models.encoding import encode_prefix
from sightline.models.head import tokens_within
from sightline.models.requests import Prefix, ScoreRequest, make_prefix, without_pictures
from sightline.models.scorer import flat_logps, flat_scores
from sightline.models.vlm import VLM
from sightline.records.rows import Pair

#: Fields of the answers' sums, by the prefix that the answers are scored after.
OWN = ("chosen", "rejected")
SECOND, CORRUPTED_IMAGE, NO_IMAGE = ("second_rejected",), ("weakened_chosen",), ("blind_chosen", "blind_rejected")
#: Fields with a token count.
COUNTED = {*OWN, *SECOND}
#: Per need: which pairs cannot serve it, and why.
LACKS: dict[Requirement, tuple[Callable[[Pair], bool], str]] = {
    Requirement.SECOND_REJECTED: (lambda pair: not pair.second_rejected, "no second rejected answer"),
    Requirement.SPANS: (lambda pair: not (pair.chosen_spans or pair.rejected_spans), "no correction spans"),
    Requirement.CORRUPTED_IMAGE: (lambda pair: not pair.images, "no picture to weaken"),
    Requirement.NO_IMAGE: (lambda pair: not pair.images, "no picture to leave out"),
}

Weaken = Callable[[Pair], tuple[Path, ...]]
Blind = Literal["none", "zero-image"]


def make_score_request(pair: Pair) -> ScoreRequest:
    """A pair with absolute image paths as a prefix with two answers, the chosen one first."""
    return ScoreRequest(make_prefix(pair, Path()), (pair.chosen, pair.rejected))


@dataclass(frozen=True)
class ScoringGroup:
    """Answers that share a prefix, each with its field of `PairLogps`."""

    fields: tuple[str, ...]
    scored: ScoreRequest


@dataclass(frozen=True)
class Scoring:
    """The needs of the losses. `weaken` gives the files of a pair's corrupted images, for losses that need them.

    `blind` replaces a pair's images on the blind side: by nothing ("none"), or by all-zero pixels in the same place
    ("zero-image"), as in the released code of V-DPO (YuxiXie/V-DPO, `n_random_images 0`).
    """

    needs: frozenset[Requirement] = frozenset()
    weaken: Weaken | None = None
    blind: Blind = "none"

    def drop_reason(self, pair: Pair) -> str | None:
        """Why a pair cannot be scored for these needs, or None."""
        return next((why for need, (lacks, why) in LACKS.items() if need in self.needs and lacks(pair)), None)

    def groups(self, pair: Pair) -> list[ScoringGroup]:
        """The groups of a pair, its own prefix first."""
        own = make_score_request(pair)
        fields: tuple[str, ...] = OWN
        if Requirement.SECOND_REJECTED in self.needs:
            own, fields = replace(own, answers=(*own.answers, pair.second_rejected or "")), (*OWN, *SECOND)
        groups = [ScoringGroup(fields, own)]
        if Requirement.CORRUPTED_IMAGE in self.needs:
            if self.weaken is None:
                raise ValueError("a corrupted image is needed and `weaken` is None")
            weak: Prefix = replace(own.prefix, images=self.weaken(pair))
            groups.append(ScoringGroup(CORRUPTED_IMAGE, ScoreRequest(weak, (pair.chosen,))))
        if Requirement.NO_IMAGE in self.needs:
            zeroed = self.blind == "zero-image"
            blind = replace(own.prefix, zeroed=True) if zeroed else without_pictures(own.prefix)
            groups.append(ScoringGroup(NO_IMAGE, ScoreRequest(blind, (pair.chosen, pair.rejected))))
        return groups


def score_pairs(vlm: VLM, pairs: Sequence[Pair], scoring: Scoring | None = None, *, autocast: bool) -> PairLogps:
    """Score all answers of each pair in one pass by the model in its present mode; differentiable."""
    scoring = scoring or Scoring()
    laid = [scoring.groups(pair) for pair in pairs]
    values, mask = flat_logps(vlm, _requests(laid), autocast=autocast)
    return _pair_logps(vlm, pairs, scoring.needs, laid[0], values, mask)


def score_with_entropy(
    vlm: VLM, pairs: Sequence[Pair], scoring: Scoring, *, autocast: bool
) -> tuple[PairLogps, Float[Tensor, "pair"]]:
    """The same as `score_pairs`, with the model's mean entropy (nats, no gradient) over both answers' tokens."""
    laid = [scoring.groups(pair) for pair in pairs]
    values, entropy, mask = flat_scores(vlm, _requests(laid), autocast=autocast)
    own = slice(0, len(OWN))  # a pair's first group begins with its own two answers
    sums, lengths = (table.view(len(pairs), -1, table.shape[-1])[:, own].sum((1, 2)) for table in (entropy, mask))
    return _pair_logps(vlm, pairs, scoring.needs, laid[0], values, mask), sums / lengths


def _requests(laid: Sequence[Sequence[ScoringGroup]]) -> list[ScoreRequest]:
    return [group.scored for groups in laid for group in groups]


def _pair_logps(
    vlm: VLM,
    pairs: Sequence[Pair],
    needs: frozenset[Requirement],
    laid: Sequence[ScoringGroup],
    values: Float[Tensor, "answer token"],
    mask: Bool[Tensor, "answer token"],
) -> PairLogps:
    """The sums over answers, by field; `laid` is the layout of every pair."""
    names = [field for group in laid for field in group.fields]
    sums, lengths = values.sum(-1).view(len(pairs), -1), mask.sum(-1).view(len(pairs), -1)
    columns = {name: sums[:, place] for place, name in enumerate(names)}
    columns |= {f"{name}_tokens": lengths[:, place] for place, name in enumerate(names) if name in COUNTED}
    if Requirement.SPANS in needs:
        changed = [changed_tokens(vlm, pair) for pair in pairs]
        tokens = values.view(len(pairs), len(names), -1)
        for place, name in enumerate(OWN):
            inside = to_device(_pad([each[name] for each in changed], tokens.shape[-1]), vlm.device)
            columns[f"{name}_changed"] = torch.where(inside, tokens[:, place], 0.0).sum(-1)
            columns[f"{name}_changed_tokens"] = inside.sum(-1)
    return PairLogps(**columns)


def mismatched_requests(pairs: Sequence[Pair]) -> list[ScoreRequest]:
    """Each pair's prefix with an answer of the next pair (cyclic), alternating chosen and rejected.

    KTO (arXiv 2402.01306) estimates its KL from answers to other prompts of the batch; which ones is our choice.
    """
    others = [*pairs[1:], pairs[0]]
    return [
        ScoreRequest(make_prefix(pair, Path()), (other.rejected if place % 2 else other.chosen,))
        for place, (pair, other) in enumerate(zip(pairs, others, strict=True))
    ]


def sum_answers(
    groups: Sequence[ScoringGroup], tokens: Sequence[Mapping[str, Tensor]], changed: Mapping[str, Tensor] | None
) -> dict[str, float]:
    """The fields of one pair, from each group's token log-probs by field; `changed` as from `changed_tokens`."""
    numbers: dict[str, float] = {}
    for group, logps in zip(groups, tokens, strict=True):
        for name in group.fields:
            numbers[name] = float(logps[name].sum())
            if name in COUNTED:
                numbers[f"{name}_tokens"] = len(logps[name])
            if changed is not None and name in changed:
                numbers[f"{name}_changed"] = float(logps[name][changed[name]].sum())
                numbers[f"{name}_changed_tokens"] = int(changed[name].sum())
    return numbers


def changed_tokens(vlm: VLM, pair: Pair) -> dict[str, Bool[Tensor, "token"]]:
    """Masks of both answers' tokens within the pair's correction spans."""
    prefix = encode_prefix(vlm, make_prefix(pair, Path()))
    return {
        "chosen": tokens_within(vlm, prefix, pair.chosen, pair.chosen_spans),
        "rejected": tokens_within(vlm, prefix, pair.rejected, pair.rejected_spans),
    }


def _pad(rows: Sequence[Bool[Tensor, "_"]], length: int) -> Bool[Tensor, "pair token"]:
    padded = torch.zeros((len(rows), length), dtype=torch.bool)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded


def stack_rows(rows: Sequence[Mapping[str, float]], device: torch.device) -> PairLogps:
    """The numbers of several pairs as tensors."""
    columns = {name: to_device(torch.tensor([row[name] for row in rows]), device) for name in rows[0]}
    return PairLogps(**columns)
