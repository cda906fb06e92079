"""Learning a reward model from preference pairs: a scalar head on the model that scores chosen answers higher.

`losses` defines the loss (`Requirement.REWARDS`), `models.scalar_head` the head. The result is a judge
(`judges.reward`), and `rl` can train policies on it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sightline.losses.objective import Objective
from sightline.losses.types import PairLogps
from sightline.models.device import to_device
from sightline.models.scalar_head import new_head, row_scores, save_head
from sightline.models.scorer import encode_row
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.train.log import StepRecord
from sightline.train.preference import STREAM
from sightline.train.scoring import make_score_request
from sightline.train.task import Losses, Part


class RewardTask:
    """The task of a reward model over pairs (`task.Task`) with absolute image paths; `lr` is the head's own rate."""

    def __init__(self, vlm: VLM, objective: Objective, *, lr: float | None, autocast: bool) -> None:
        self._vlm, self._objective, self._autocast = vlm, objective, autocast
        self._head = new_head(vlm)
        self._parts = {"head": Part(self._head, lr)}

    @property
    def parts(self) -> Mapping[str, Part]:
        """The head."""
        return self._parts

    def begin(self, _items: Sequence[Pair]) -> Callable[[Sequence[Pair]], Losses]:
        """Losses of pairs; each depends on its pair only."""
        return self._losses

    def end(self, record: StepRecord) -> None:
        """Nothing to update."""

    def label(self, item: Pair) -> str:
        """The pair's id."""
        return item.id

    def stream(self, item: Pair) -> str:
        """The stream in the pair's provenance."""
        return str(item.provenance.get(STREAM, ""))

    def state(self) -> dict[str, Any]:
        """Empty: the head is one of the parts."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""

    def save(self, directory: Path) -> None:
        """Save the head beside the adapter; it marks the directory as a reward model."""
        save_head(self._head, "reward", directory)

    def _losses(self, pairs: Sequence[Pair]) -> Losses:
        rows = [encode_row(self._vlm, make_score_request(pair)) for pair in pairs]
        scores = row_scores(self._vlm, self._head, rows, autocast=self._autocast)
        chosen, rejected = scores.view(-1, 2).unbind(1)
        lengths = to_device(torch.tensor([[len(answer) for answer in row.answers] for row in rows]), scores.device)
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
