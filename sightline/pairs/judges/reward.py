"""The judge that was trained: a DPO adapter as the reward model that it implicitly is.

Rafailov et al. 2023, eq. 5: r(x, y) = beta * (log pi(y|x) - log pi_ref(y|x)), up to a term of the prompt alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from sightline.config import Config
from sightline.models.adapters import reference_mode
from sightline.models.loading import load_vlm, weights_hash
from sightline.models.prompts import Scored
from sightline.models.scorer import answer_logps
from sightline.models.tensor_cache import open_cache
from sightline.models.vlm import VLM
from sightline.pairs.builder import Tools
from sightline.pairs.judges.base import Judge, Judged, Verdict
from sightline.records import hash_json


class RewardJudgeConfig(Config):
    """A model and the adapter that preference training made for it; the answers it was taught to prefer score high."""

    name: Literal["reward"]
    model: Path
    adapter: Path
    beta: float = Field(gt=0, description="that of the training, which only scales")
    batch_size: int = Field(default=16, gt=0, description="answers in one pass")
    autocast: bool = False

    def open(self, tools: Tools) -> Judge:
        """The judge."""
        return _Reward(self, load_vlm(self.model, adapter=self.adapter, cache=open_cache()))


class _Reward:
    def __init__(self, config: RewardJudgeConfig, vlm: VLM) -> None:
        self._config, self._vlm = config, vlm
        weights = [weights_hash(path) for path in (config.model, config.adapter)]
        self.identity = hash_json(["reward", *weights, config.beta])

    def score(self, asked: Sequence[Judged]) -> list[Verdict]:
        found: list[Verdict] = []
        for start in range(0, len(asked), self._config.batch_size):
            items = [Scored(one.prefix, (one.answer,)) for one in asked[start : start + self._config.batch_size]]
            with torch.no_grad():
                trained = answer_logps(self._vlm, items, autocast=self._config.autocast).sums()[:, 0]
                with reference_mode(self._vlm):
                    before = answer_logps(self._vlm, items, autocast=self._config.autocast).sums()[:, 0]
            found += [Verdict(self._config.beta * gain) for gain in (trained - before).tolist()]
        return found
