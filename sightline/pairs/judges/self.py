"""The judge that needs nobody else: by how much the picture makes an answer likelier to the model itself."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field

from sightline.config import Config
from sightline.models.prompts import Scored, without_pictures
from sightline.models.scorer import answer_logps
from sightline.models.vlm import VLM
from sightline.pairs.builder import Tools
from sightline.pairs.judges.base import Judge, Judged, Verdict
from sightline.records import hash_json


class SelfJudgeConfig(Config):
    """Mean over an answer's tokens of log p(token | picture, prompt) - log p(token | prompt), in nats.

    Our own choice; what language alone predicts earns nothing. Unscored without a picture.
    """

    name: Literal["self"]
    batch_size: int = Field(default=16, gt=0, description="answers in one pass")
    autocast: bool = False

    def open(self, tools: Tools) -> Judge:
        """The judge."""
        return _Self(self, tools.vlm)


class _Self:
    def __init__(self, config: SelfJudgeConfig, vlm: VLM) -> None:
        self._config, self._vlm = config, vlm
        self.identity = hash_json(["self", vlm.path])

    def score(self, asked: Sequence[Judged]) -> list[Verdict]:
        seen = [one for one in asked if one.prefix.images and one.answer]
        gains = iter(self._gains(seen))
        return [
            Verdict(next(gains)) if one.prefix.images and one.answer else Verdict(None, note="no picture or no answer")
            for one in asked
        ]

    def _gains(self, asked: Sequence[Judged]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(asked), self._config.batch_size):
            batch = asked[start : start + self._config.batch_size]
            seen = [Scored(one.prefix, (one.answer,)) for one in batch]
            blind = [Scored(without_pictures(one.prefix), (one.answer,)) for one in batch]
            with torch.no_grad():
                scored = [answer_logps(self._vlm, items, autocast=self._config.autocast) for items in (seen, blind)]
            gains = (scored[0].sums() - scored[1].sums()) / scored[0].lengths()
            found += gains[:, 0].tolist()
        return found
