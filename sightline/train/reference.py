"""Log-probabilities of pairs, under the policy and under the reference, which is the policy with its adapter off.

The forward pass itself is the models room's; what is kept here are the reference's numbers of pairs that come again in
a later epoch. `loop` feeds both to the loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from sightline.losses.types import PairLogps
from sightline.models.adapters import reference_mode
from sightline.models.loading import VLM
from sightline.models.prompts import Prefix, Scored
from sightline.models.scorer import answer_logps
from sightline.records.rows import Pair


@dataclass(frozen=True)
class PairScores:
    """Log-probs of the answers of pairs, and the answers' lengths in tokens, end of turn included."""

    logps: PairLogps
    chosen_tokens: Int[Tensor, "pair"]
    rejected_tokens: Int[Tensor, "pair"]


def to_scored(pair: Pair) -> Scored:
    """A pair whose image paths are absolute as a prefix with two answers, the chosen one first."""
    return Scored(Prefix(tuple(Path(image) for image in pair.images), pair.prompt), (pair.chosen, pair.rejected))


def score_pairs(vlm: VLM, pairs: Sequence[Pair], *, autocast: bool) -> PairScores:
    """Score both answers of each pair under the model as it is: differentiable, in its present train or eval mode."""
    scored = answer_logps(vlm, [to_scored(pair) for pair in pairs], autocast=autocast)
    (chosen, rejected), (chosen_tokens, rejected_tokens) = scored.sums().unbind(1), scored.lengths().unbind(1)
    return PairScores(PairLogps(chosen, rejected), chosen_tokens, rejected_tokens)


class Reference:
    """Scores pairs with the adapter off, in eval mode and without gradients.

    With `keep`, a pair's numbers are kept by its id and never computed again: for sources that give the same pairs
    every epoch. `state` and `restore` carry them over a restart, because numbers computed anew in other batches could
    differ in their last bits and the resumed run with them.
    """

    def __init__(self, vlm: VLM, *, autocast: bool, keep: bool) -> None:
        self._vlm = vlm
        self._autocast = autocast
        self._keep = keep
        self._kept: dict[str, tuple[float, float]] = {}

    def __call__(self, pairs: Sequence[Pair]) -> PairLogps:
        """Reference log-probs of each pair, shape "pair", on the model's device."""
        if not self._keep:
            return self._score(pairs)
        missing = [pair for pair in pairs if pair.id not in self._kept]
        if missing:
            scores = self._score(missing)
            for pair, chosen, rejected in zip(missing, scores.chosen.tolist(), scores.rejected.tolist(), strict=True):
                self._kept[pair.id] = (chosen, rejected)
        columns = torch.tensor([self._kept[pair.id] for pair in pairs], device=self._vlm.device)
        return PairLogps(columns[:, 0], columns[:, 1])

    def _score(self, pairs: Sequence[Pair]) -> PairLogps:
        model, was_training = self._vlm.model, self._vlm.model.training
        model.eval()  # the reference has no dropout of its own either
        try:
            with torch.no_grad(), reference_mode(self._vlm):
                return score_pairs(self._vlm, pairs, autocast=self._autocast).logps
        finally:
            model.train(was_training)

    def state(self) -> dict[str, tuple[float, float]]:
        """The kept numbers, (chosen, rejected) by pair id."""
        return dict(self._kept)

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Take over what `state` gave."""
        self._kept = {pair_id: (chosen, rejected) for pair_id, (chosen, rejected) in state.items()}
