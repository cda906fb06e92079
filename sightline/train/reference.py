"""What a frozen model says of pairs, which is the same in every epoch and every run, so it is kept.

The forward pass itself is the models room's, which model that is `frozen`'s affair, and what is scored `scoring`'s.
`preference` feeds the numbers to the loss.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.losses.types import Need, PairLogps
from sightline.models.encoding import SYSTEM_RULE
from sightline.models.precision import uses_bfloat16
from sightline.models.prompts import Scored
from sightline.models.scorer import flat_logps
from sightline.models.tensor_cache import content_key
from sightline.models.vlm import VLM
from sightline.records.hashing import hash_file
from sightline.records.rows import Pair
from sightline.train.frozen import Frozen, WithoutAdapter
from sightline.train.scoring import Scoring, changed_tokens, stacked, sums_of


class Reference:
    """Scores pairs by a frozen model, each prefix with its answers in a pass of its own.

    So a pair's numbers depend on nothing but the pair, to the last bit, and may be taken from where they were computed
    before: with `keep` from memory, by the pair's id, and from the model's cache on disk, by content, in this run or
    another on the same weights. Without `frozen` the model is the policy `vlm` with its adapter off.
    """

    def __init__(
        self, vlm: VLM, scoring: Scoring | None = None, *, autocast: bool, keep: bool, frozen: Frozen | None = None
    ) -> None:
        self._vlm = vlm
        self._scoring = scoring or Scoring()
        self._autocast, self._halved = autocast, uses_bfloat16(vlm, autocast)
        self._keep = keep
        self._frozen = frozen or WithoutAdapter(vlm)
        self._kept: dict[str, dict[str, float]] = {}

    def __call__(self, pairs: Sequence[Pair]) -> PairLogps:
        """Reference log-probs of each pair, shape "pair", on the policy's device."""
        found = {pair.id: self._kept[pair.id] for pair in pairs if pair.id in self._kept}
        found |= {pair.id: self._numbers(pair) for pair in pairs if pair.id not in found}
        if self._keep:
            self._kept |= found
        return stacked([found[pair.id] for pair in pairs], self._vlm.device)

    def sums(self, asked: Sequence[Scored]) -> Float[Tensor, "prefix"]:
        """The log-probability of each prefix's first answer, for answers that belong to no pair."""
        return torch.tensor([float(self._fetch(each)[0].sum()) for each in asked], device=self._vlm.device)

    def learn(self, pairs: Sequence[Pair]) -> None:
        """Score all these pairs now, keep the numbers in memory and free the model's."""
        self._kept |= {pair.id: self._numbers(pair) for pair in pairs}
        self._frozen.close()

    def _numbers(self, pair: Pair) -> dict[str, float]:
        """The fields of `PairLogps` by name."""
        groups = self._scoring.groups(pair)
        tokens = [dict(zip(group.fields, self._fetch(group.scored), strict=True)) for group in groups]
        changed = changed_tokens(self._vlm, pair) if Need.SPANS in self._scoring.needs else None
        return sums_of(groups, tokens, changed)

    def _fetch(self, scored: Scored) -> list[Tensor]:
        """Log-probs of the tokens of each answer, on the CPU."""
        cache = self._vlm.cache
        made = self._score(scored) if cache is None else cache.fetch(self._key(scored), lambda: self._score(scored))
        return [made[f"{place:02d}"] for place in range(len(scored.answers))]

    def _score(self, scored: Scored) -> dict[str, Tensor]:
        with self._frozen.opened() as vlm:
            values, mask = flat_logps(vlm, [scored], autocast=self._autocast)
        rows = zip(values.cpu(), mask.sum(-1).tolist(), strict=True)
        return {f"{place:02d}": row[:length] for place, (row, length) in enumerate(rows)}

    def _key(self, scored: Scored) -> str:
        prefix = scored.prefix
        pictures = [hash_file(Path(image)) + (" zeroed" if prefix.zeroed else "") for image in prefix.images]
        formats = (str(self._vlm.dtype), self._vlm.device.type, str(self._halved), torch.__version__)
        told = [part for turn in prefix.history for part in (turn.role, turn.text)]
        counts = (len(told), len(scored.answers), len(pictures))  # lest a turn be taken for an answer
        # What was kept of rows with system turns under an earlier rule was of another text.
        rules = (SYSTEM_RULE,) if any(turn.role == "system" for turn in prefix.history) else ()
        texts = (*told, prefix.prompt, *scored.answers, *prefix.media, *rules)
        return content_key("reference", self._frozen.identity, *formats, *counts, *texts, *pictures)
