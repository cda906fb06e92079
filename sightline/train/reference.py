"""Log-probabilities of pairs, under the policy and under the reference, which is the policy with its adapter off.

The forward pass itself is the models room's; what is kept here are the reference's numbers, which are the same in every
epoch and every run. `loop` feeds both to the loss.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sightline.losses.types import PairLogps
from sightline.models.adapters import reference_mode
from sightline.models.loading import content_of
from sightline.models.prompts import Scored, prefix_of
from sightline.models.scorer import answer_logps
from sightline.models.tensor_cache import content_key
from sightline.models.vlm import VLM, evaluating
from sightline.records.hashing import hash_file
from sightline.records.rows import Pair


def to_scored(pair: Pair) -> Scored:
    """A pair whose image paths are absolute as a prefix with two answers, the chosen one first."""
    return Scored(prefix_of(pair, Path()), (pair.chosen, pair.rejected))


def score_pairs(vlm: VLM, pairs: Sequence[Pair], *, autocast: bool) -> PairLogps:
    """Score both answers of each pair under the model as it is: differentiable, in its present train or eval mode."""
    scored = answer_logps(vlm, [to_scored(pair) for pair in pairs], autocast=autocast)
    (chosen, rejected), (chosen_tokens, rejected_tokens) = scored.sums().unbind(1), scored.lengths().unbind(1)
    return PairLogps(chosen, rejected, chosen_tokens, rejected_tokens)


class Reference:
    """Scores pairs with the adapter off, in eval mode and without gradients, each pair in a pass of its own.

    So a pair's numbers depend on nothing but the pair, to the last bit, and may be taken from where they were computed
    before: with `keep` from memory, by the pair's id, and from the model's cache on disk, by content, in this run or
    another on the same weights.
    """

    def __init__(self, vlm: VLM, *, autocast: bool, keep: bool) -> None:
        self._vlm = vlm
        self._autocast = autocast
        self._keep = keep
        self._kept: dict[str, tuple[float, float, int, int]] = {}
        self._weights = "" if vlm.cache is None else content_of(vlm)

    def __call__(self, pairs: Sequence[Pair]) -> PairLogps:
        """Reference log-probs of each pair, shape "pair", on the model's device."""
        found = {pair.id: self._kept[pair.id] for pair in pairs if pair.id in self._kept}
        missing = [pair for pair in pairs if pair.id not in found]
        if missing:
            with evaluating(self._vlm), reference_mode(self._vlm):  # the reference has no dropout of its own either
                found |= {pair.id: self._numbers(pair) for pair in missing}
        if self._keep:
            self._kept |= found
        chosen, rejected, *lengths = zip(*(found[pair.id] for pair in pairs), strict=True)
        logps = (torch.tensor(column, device=self._vlm.device) for column in (chosen, rejected))
        return PairLogps(*logps, *(torch.tensor(column, device=self._vlm.device) for column in lengths))

    def _numbers(self, pair: Pair) -> tuple[float, float, int, int]:
        """Log-probs of both answers, then their lengths."""
        cache = self._vlm.cache
        made = self._score(pair) if cache is None else cache.fetch(self._key(pair), lambda: self._score(pair))
        sides = [made["chosen"], made["rejected"]]
        return float(sides[0].sum()), float(sides[1].sum()), len(sides[0]), len(sides[1])

    def _score(self, pair: Pair) -> dict[str, Tensor]:
        """Log-probs of the tokens of both answers."""
        made = answer_logps(self._vlm, [to_scored(pair)], autocast=self._autocast)
        lengths = made.lengths()[0].tolist()
        chosen, rejected = (made.values[0, k, :length].cpu() for k, length in enumerate(lengths))
        return {"chosen": chosen, "rejected": rejected}

    def _key(self, pair: Pair) -> str:
        pictures = [hash_file(Path(image)) for image in pair.images]
        formats = (str(self._vlm.dtype), self._vlm.device.type, str(self._autocast), torch.__version__)
        told = [part for turn in pair.history for part in (turn.role, turn.text)]
        texts = (*told, pair.prompt, pair.chosen, pair.rejected)
        return content_key("reference", self._weights, *formats, *texts, *pictures)
