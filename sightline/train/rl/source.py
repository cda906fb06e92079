"""Rollouts of the present policy, dealt out to the steps that learn from them: a source of the one loop.

A rollout of many prompts is made at once, then drawn in minibatches, several times over where the config says so. What
waits to be drawn is in `state`, so that a run that was killed goes on with the very tokens of its former policy.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from sightline.errors import InputError
from sightline.pairs.judges.base import Judge
from sightline.records.rows import Sample
from sightline.train.rl.config import RLConfig
from sightline.train.rl.credit import Scorer, credited, summary
from sightline.train.rl.reward_scale import RewardScale
from sightline.train.rl.rollout import Rollout
from sightline.train.rl.sampling import Asker, sample_rollouts
from sightline.train.sources import Source

UNSCORED = "unscored"  # among the numbers of the log: answers that no judge scored


class RolloutSource:
    """Prompts in, rollouts out (`sources.Source`).

    `prompts` gives those of one rollout at a time, which are `minibatches` steps' worth; `measure` finds the scale of
    rewards before the first of them.
    """

    def __init__(
        self,
        prompts: Source[Sample],
        asker: Asker,
        judge: Judge,
        scorer: Scorer,
        measure: Callable[[], RewardScale],
        *,
        max_steps: int | None,
    ) -> None:
        self._prompts, self._asker, self._judge, self._scorer = prompts, asker, judge, scorer
        self._measure = measure
        self._steps = min(prompts.steps * self._config.updates, max_steps or prompts.steps * self._config.updates)
        self._drawn = 0
        self._scale: RewardScale | None = None
        self._rollouts: list[Rollout] = []
        self._numbers: dict[str, float] = {}

    @property
    def _config(self) -> RLConfig:
        return self._asker.config

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def repeats(self) -> bool:
        """What is sampled is never sampled again."""
        return False

    def scale(self) -> RewardScale:
        """By what rewards are measured; found at the first call, and fixed from then on."""
        if self._scale is None:
            self._scale = self._measure()
        return self._scale

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[Rollout]:
        if self._drawn >= self._steps:
            raise StopIteration
        draw, update = divmod(self._drawn, self._config.updates)
        self._numbers = {}
        if update == 0:
            self._rollouts = self._roll(next(self._prompts), draw)
        epoch, batch = divmod(update, self._config.minibatches)
        order = np.random.default_rng([self._asker.seed, draw, epoch]).permutation(len(self._rollouts))
        parts = np.array_split(order, min(self._config.minibatches, len(order)))  # where few are left, each comes again
        self._drawn += 1
        return [self._rollouts[index] for index in parts[batch % len(parts)]]

    def numbers(self) -> Mapping[str, float]:
        """The means of a rollout (`credit.summary`) at its first step, with what was left out of it."""
        return self._numbers

    def state(self) -> dict[str, Any]:
        waiting = self._rollouts if self._drawn % self._config.updates else []
        return {
            "drawn": self._drawn,
            "prompts": self._prompts.state(),
            "scale": None if self._scale is None else self._scale.model_dump(),
            "rollouts": [rollout.model_dump(mode="json") for rollout in waiting],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._prompts.restore(state["prompts"])
        self._drawn = state["drawn"]
        self._scale = None if state["scale"] is None else RewardScale.model_validate(state["scale"])
        self._rollouts = [Rollout.model_validate(row) for row in state["rollouts"]]

    def _roll(self, samples: Sequence[Sample], draw: int) -> list[Rollout]:
        scale = self.scale()
        sampled = sample_rollouts(self._asker, samples, draw, self._judge, scale)
        if not sampled.rollouts:
            raise InputError(
                f"rollout {draw}: the judge left {sampled.unscored} of {len(samples) * self._config.answers} answers "
                f"unscored{f' ({sampled.note})' if sampled.note else ''}, so that no prompt has {self._config.least}; "
                "look at the judge, then give the same command again, which goes on from the last checkpoint"
            )
        rollouts = credited(self._scorer.score(sampled.rollouts), self._config)
        self._numbers = {
            **summary(rollouts),
            "answers": float(sum(len(rollout.answers) for rollout in rollouts)),
            UNSCORED: float(sampled.unscored),
            "prompts_left_out": float(sampled.left_out),
            **({} if draw else {"scale_mean": scale.mean, "scale_std": scale.std}),
        }
        return rollouts
