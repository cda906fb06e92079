"""Learning a reward model from preference pairs: a head of one number on the model, and the chosen answer above.

Which loss that is, is asked of `losses` (`Need.REWARDS`); the head is `models.scalar_head`. What it makes is a judge
(`judges.reward`) and what policies are trained on by `rl`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sightline.losses.objective import Objective
from sightline.losses.types import PairLogps
from sightline.models.scalar_head import new_head, row_scores, save_head
from sightline.models.scorer import encode_row
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.train.log import StepRecord
from sightline.train.preference import STREAM
from sightline.train.scoring import to_scored
from sightline.train.task import Losses, Part


class RewardTask:
    """The task of a reward model over pairs (`task.Task`), their image paths absolute; `lr` is the head's own."""

    def __init__(self, vlm: VLM, objective: Objective, *, lr: float | None, autocast: bool) -> None:
        self._vlm, self._objective, self._autocast = vlm, objective, autocast
        self._head = new_head(vlm)
        self._parts = {"head": Part(self._head, lr)}

    @property
    def parts(self) -> Mapping[str, Part]:
        """The head."""
        return self._parts

    def begin(self, _items: Sequence[Pair]) -> Callable[[Sequence[Pair]], Losses]:
        """Losses of pairs, each of which depends on the pair alone."""
        return self._losses

    def end(self, record: StepRecord) -> None:
        """Nothing moves with the steps."""

    def label(self, item: Pair) -> str:
        """The pair's id."""
        return item.id

    def stream(self, item: Pair) -> str:
        """What the pair's provenance says."""
        return str(item.provenance.get(STREAM, ""))

    def state(self) -> dict[str, Any]:
        """Empty: the head is one of the parts."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""

    def save(self, directory: Path) -> None:
        """The head, beside the adapter: by it the directory is known as a reward model."""
        save_head(self._head, "reward", directory)

    def _losses(self, pairs: Sequence[Pair]) -> Losses:
        rows = [encode_row(self._vlm, to_scored(pair)) for pair in pairs]
        scores = row_scores(self._vlm, self._head, rows, autocast=self._autocast)
        chosen, rejected = scores.view(-1, 2).unbind(1)
        lengths = torch.tensor([[len(answer) for answer in row.answers] for row in rows], device=scores.device)
        out = self._objective(PairLogps(chosen, rejected, lengths[:, 0], lengths[:, 1]))
        columns = {
            "chosen_reward": out.chosen_reward,
            "rejected_reward": out.rejected_reward,
            "margin": out.chosen_reward - out.rejected_reward,
            "accuracy": out.chosen_reward > out.rejected_reward,
            "chosen_tokens": lengths[:, 0],
            "rejected_tokens": lengths[:, 1],
        }
        return Losses(out.loss, columns)
