"""The judge that was trained: a reward model with a head of its own, or a DPO adapter as the one that it implicitly is.

With a head (`sightline train` with the loss `reward`) the score is r(x, y) of Bradley and Terry. Without one it is that
of Rafailov et al. 2023, eq. 5: r(x, y) = beta * (log pi(y|x) - log pi_ref(y|x)), up to a term of the prompt alone.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from sightline.config import Config
from sightline.errors import InputError
from sightline.judges.judge import Judge, Verdict
from sightline.models.adapters import reference_mode
from sightline.models.context import RunContext
from sightline.models.device import resolve_device
from sightline.models.encoding import RowTooLong, encode_answer, encode_prefix
from sightline.models.loading import load_vlm, weights_hash
from sightline.models.requests import JudgeInput, ScoreRequest, without_pictures
from sightline.models.scalar_head import ABOUT, ScalarHead, answer_scores, has_head, load_head
from sightline.models.scorer import answer_logps
from sightline.models.tensor_cache import open_cache
from sightline.models.vlm import VLM
from sightline.records import hash_json


class RewardJudgeConfig(Config):
    """A model and the adapter that preference training made for it; the answers it was taught to prefer score high.

    A reward model that was trained in full has no adapter. `beta` goes with an adapter of DPO, and with no reward
    model. An answer that does not fit the model is unscored.
    """

    name: Literal["reward"]
    model: Path
    adapter: Path | None = None
    beta: float | None = Field(default=None, gt=0, description="that of the training with DPO, which only scales")
    batch_size: int = Field(default=16, gt=0, description="answers in one pass")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    autocast: bool = False

    def open(self, tools: RunContext) -> Judge:
        """The judge.

        Raises:
            InputError: there is no head and no adapter with a beta, or there are both.
        """
        place = self.adapter or self.model
        has_own = has_head(place, "reward")
        if not has_own and (self.beta is None or self.adapter is None):
            raise InputError(
                f"{place} is no reward model, as it has no {ABOUT} of one; name one that `sightline train` made "
                "with the loss reward, or give judge.beta to take an adapter of DPO for the reward that it implies"
            )
        if has_own and self.beta is not None:
            raise InputError(f"{place} is a reward model with a head of its own; leave judge.beta out")
        vlm = load_vlm(
            self.model, adapter=self.adapter, device=resolve_device(self.device), dtype=self.dtype, cache=open_cache()
        )
        return _Reward(self, vlm, load_head(vlm, "reward", place) if has_own else None)


class _Reward:
    def __init__(self, config: RewardJudgeConfig, vlm: VLM, head: ScalarHead | None) -> None:
        self._config, self._vlm = config, vlm
        weights = [weights_hash(path) for path in (config.model, config.adapter) if path]
        self.identity = hash_json(["reward", *weights, config.beta])
        self._rate: Callable[[Sequence[JudgeInput]], list[float]] = (
            self._implied if head is None else lambda asked: self._scored(head, asked)
        )

    def score(self, asked: Sequence[JudgeInput]) -> list[Verdict]:
        fitting = [self._fits(one) for one in asked]
        kept = [one for one, fit in zip(asked, fitting, strict=True) if fit]
        scores: Iterator[float] = iter(
            [
                score
                for start in range(0, len(kept), self._config.batch_size)
                for score in self._rate(kept[start : start + self._config.batch_size])
            ]
        )
        return [Verdict(next(scores)) if fit else Verdict(None, note="too long for the judge") for fit in fitting]

    def _fits(self, one: JudgeInput) -> bool:
        try:
            encode_answer(self._vlm, encode_prefix(self._vlm, one.prefix), one.answer)
        except RowTooLong:
            return False
        return True

    def _scored(self, head: ScalarHead, asked: Sequence[JudgeInput]) -> list[float]:
        """Answers to one prompt that stand together share its pass."""
        groups = groupby(asked, key=lambda one: one.prefix)
        items = [ScoreRequest(prefix, tuple(one.answer for one in group)) for prefix, group in groups]
        with torch.no_grad():
            return answer_scores(self._vlm, head, items, autocast=self._config.autocast).tolist()

    def _implied(self, asked: Sequence[JudgeInput]) -> list[float]:
        items = [ScoreRequest(one.prefix, (one.answer,)) for one in asked]
        with torch.no_grad():
            trained = answer_logps(self._vlm, items, autocast=self._config.autocast).sums()[:, 0]
            with reference_mode(self._vlm):
                before = answer_logps(self._vlm, items, autocast=self._config.autocast).sums()[:, 0]
        gains: list[float] = ((self._config.beta or 1.0) * (trained - before)).tolist()
        return gains


class SelfJudgeConfig(Config):
    """Mean over an answer's tokens of log p(token | picture, prompt) - log p(token | prompt), in nats.

    Our own choice; what language alone predicts earns nothing. Unscored without a picture.
    """

    name: Literal["self"]
    batch_size: int = Field(default=16, gt=0, description="answers in one pass")
    autocast: bool = False

    def open(self, tools: RunContext) -> Judge:
        """The judge."""
        return _Self(self, tools.vlm)


class _Self:
    def __init__(self, config: SelfJudgeConfig, vlm: VLM) -> None:
        self._config, self._vlm = config, vlm
        self.identity = hash_json(["self", vlm.path])

    def score(self, asked: Sequence[JudgeInput]) -> list[Verdict]:
        seen = [one for one in asked if one.prefix.images and one.answer]
        gains = iter(self._gains(seen))
        return [
            Verdict(next(gains)) if one.prefix.images and one.answer else Verdict(None, note="no picture or no answer")
            for one in asked
        ]

    def _gains(self, asked: Sequence[JudgeInput]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(asked), self._config.batch_size):
            batch = asked[start : start + self._config.batch_size]
            seen = [ScoreRequest(one.prefix, (one.answer,)) for one in batch]
            blind = [ScoreRequest(without_pictures(one.prefix), (one.answer,)) for one in batch]
            with torch.no_grad():
                scored = [answer_logps(self._vlm, items, autocast=self._config.autocast) for items in (seen, blind)]
            gains = (scored[0].sums() - scored[1].sums()) / scored[0].lengths()
            found += gains[:, 0].tolist()
        return found
