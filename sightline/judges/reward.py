"""Judges that are trained models: a reward model, the implicit reward of a DPO adapter, and the policy's image lift.

A reward model has a scalar head (`sightline train` with the loss `reward`); its score is r(x, y) of Bradley and Terry.
A DPO adapter scores by Rafailov et al. 2023, eq. 5: r(x, y) = beta * (log pi(y|x) - log pi_ref(y|x)), up to a term of
the prompt alone. The image lift (`self`) asks the model being aligned.
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
from sightline.models.encoding import RowTooLong, encode_answer, encode_prefix
from sightline.models.loading import weights_hash
from sightline.models.opening import open_model
from sightline.models.requests import JudgeInput, ScoreRequest, without_pictures
from sightline.models.scalar_head import ABOUT, ScalarHead, answer_scores, has_head, load_head
from sightline.models.scorer import answer_logps
from sightline.models.spec import Dtype, ModelField, ModelSpec
from sightline.models.vlm import VLM
from sightline.records import hash_json


class RewardJudgeConfig(Config):
    """A model and its preference-trained adapter; answers that training preferred score high.

    A reward model trained in full has no adapter. Set `beta` for a DPO adapter, and leave it out for a reward model.
    Answers too long for the model are unscored.
    """

    name: Literal["reward"] = Field(description="selects this judge")
    model: ModelField = Field(
        description="the base model, or a reward model trained in full: a name, or a mapping of ModelSpec"
    )
    adapter: Path | None = Field(
        default=None, description="directory of the adapter; null: the model itself is the reward model"
    )
    beta: float | None = Field(default=None, gt=0, description="beta of the DPO training; scales the scores only")
    batch_size: int = Field(default=16, gt=0, description="answers per forward pass")
    device: str = Field(default="auto", description="as in ModelSpec")
    dtype: Dtype = Field(default="auto", description="as in ModelSpec")
    autocast: bool = Field(
        default=False, description="run the forward pass in bfloat16; faster on a GPU, with slightly different numbers"
    )

    @property
    def spec(self) -> ModelSpec:
        """How to open the model."""
        own = {"adapter": self.adapter, "device": self.device, "dtype": self.dtype}
        return self.model.with_options(own | self.model.given())

    def open(self, context: RunContext) -> Judge:
        """Open the judge.

        Raises:
            InputError: there is neither a head nor an adapter with a beta, or there are both.
        """
        spec = self.spec
        place = spec.adapter or spec.place
        is_reward_model = has_head(place, "reward")
        if not is_reward_model and (self.beta is None or spec.adapter is None):
            raise InputError(
                f"{place} is not a reward model: it has no {ABOUT}; name a model trained with the loss reward, "
                "or set judge.beta to use a DPO adapter's implicit reward"
            )
        if is_reward_model and self.beta is not None:
            raise InputError(f"{place} is a reward model with its own head; remove judge.beta")
        vlm = open_model(spec)
        return _Reward(self, vlm, load_head(vlm, "reward", place) if is_reward_model else None)


class _Reward:
    def __init__(self, config: RewardJudgeConfig, vlm: VLM, head: ScalarHead | None) -> None:
        self._config, self._vlm = config, vlm
        spec = config.spec
        weights = [weights_hash(path) for path in (spec.place, spec.adapter) if path]
        settings = [vlm.spec.identity()] if vlm.spec.identity() else []
        self.identity = hash_json(["reward", *weights, config.beta, *settings])
        self._rate: Callable[[Sequence[JudgeInput]], list[float]] = (
            self._implicit_rewards if head is None else lambda inputs: self._head_scores(head, inputs)
        )

    def score(self, inputs: Sequence[JudgeInput], /) -> list[Verdict]:
        fitting = [self._fits(one) for one in inputs]
        kept = [one for one, fit in zip(inputs, fitting, strict=True) if fit]
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

    def _head_scores(self, head: ScalarHead, inputs: Sequence[JudgeInput]) -> list[float]:
        """Score answers; consecutive ones to the same prompt share a forward pass."""
        groups = groupby(inputs, key=lambda one: one.prefix)
        items = [ScoreRequest(prefix, tuple(one.answer for one in group)) for prefix, group in groups]
        with torch.no_grad():
            return answer_scores(self._vlm, head, items, autocast=self._config.autocast).tolist()

    def _implicit_rewards(self, inputs: Sequence[JudgeInput]) -> list[float]:
        items = [ScoreRequest(one.prefix, (one.answer,)) for one in inputs]
        with torch.no_grad():
            trained = answer_logps(self._vlm, items, autocast=self._config.autocast).sums()[:, 0]
            with reference_mode(self._vlm):
                before = answer_logps(self._vlm, items, autocast=self._config.autocast).sums()[:, 0]
        gains: list[float] = ((self._config.beta or 1.0) * (trained - before)).tolist()
        return gains


class SelfJudgeConfig(Config):
    """Mean over an answer's tokens of log p(token | image, prompt) - log p(token | prompt), in nats.

    Our own choice: tokens that language alone predicts earn nothing. Answers without an image are unscored.
    """

    name: Literal["self"] = Field(description="selects this judge")
    batch_size: int = Field(default=16, gt=0, description="answers per forward pass")
    autocast: bool = Field(
        default=False, description="run the forward pass in bfloat16; faster on a GPU, with slightly different numbers"
    )

    def open(self, context: RunContext) -> Judge:
        """The judge."""
        return _Self(self, context.vlm)


class _Self:
    def __init__(self, config: SelfJudgeConfig, vlm: VLM) -> None:
        self._config, self._vlm = config, vlm
        self.identity = hash_json(["self", vlm.path])

    def score(self, inputs: Sequence[JudgeInput], /) -> list[Verdict]:
        scorable = [one for one in inputs if one.prefix.images and one.answer]
        lifts = iter(self._lifts(scorable))
        return [
            Verdict(next(lifts)) if one.prefix.images and one.answer else Verdict(None, note="no picture or no answer")
            for one in inputs
        ]

    def _lifts(self, inputs: Sequence[JudgeInput]) -> list[float]:
        lifts: list[float] = []
        for start in range(0, len(inputs), self._config.batch_size):
            batch = inputs[start : start + self._config.batch_size]
            seen = [ScoreRequest(one.prefix, (one.answer,)) for one in batch]
            blind = [ScoreRequest(without_pictures(one.prefix), (one.answer,)) for one in batch]
            with torch.no_grad():
                scored = [answer_logps(self._vlm, items, autocast=self._config.autocast) for items in (seen, blind)]
            lift = (scored[0].sums() - scored[1].sums()) / scored[0].lengths()
            lifts += lift[:, 0].tolist()
        return lifts
