"""Rollouts of the present policy, dealt out to the steps that learn from them: a source of the one loop.

A rollout of many prompts is made at once, then drawn in minibatches, several times over where the config says so. What
waits to be drawn is in `state`, so that a run that was killed goes on with the very tokens of its former policy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from sightline.errors import InputError
from sightline.judges.judge import Judge
from sightline.records.rows import Sample
from sightline.train.processes import Processes
from sightline.train.rl.config import RLConfig
from sightline.train.rl.policy import Scorer, credited, summary
from sightline.train.rl.rollout import Rollout
from sightline.train.rl.rollouts import Asker, RewardScale, Sampled, sample_rollouts
from sightline.train.sources import Paused, Source

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
        processes: Processes = Processes(),  # noqa: B008 - frozen
    ) -> None:
        self._prompts, self._asker, self._judge, self._scorer = prompts, asker, judge, scorer
        self._measure, self._processes = measure, processes
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
            self._scale = self._processes.first(self._measure)
        return self._scale

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[Rollout]:
        if self._drawn >= self._steps:
            raise StopIteration
        draw, update = divmod(self._drawn, self._config.updates)
        self._numbers = {}
        if update == 0:
            self._rollouts = self._next_rollout(draw)
        epoch, batch = divmod(update, self._config.minibatches)
        order = np.random.default_rng([self._asker.seed, draw, epoch]).permutation(len(self._rollouts))
        parts = np.array_split(order, min(self._config.minibatches, len(order)))  # where few are left, each comes again
        self._drawn += 1
        return [self._rollouts[index] for index in parts[batch % len(parts)]]

    def numbers(self) -> Mapping[str, float]:
        """The means of a rollout (`credit.summary`) at its first step, with what was left out of it."""
        return self._numbers

    def dropped(self) -> Mapping[str, int]:
        """Nothing here: what was left out is in the numbers of each step."""
        return {}

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

    def close(self) -> None:
        """Nothing to let go of: rollouts are sampled in process."""

    def _next_rollout(self, draw: int) -> list[Rollout]:
        """A rollout over the next prompts; where the judge is down, those stay the next ones."""
        before = self._prompts.state()
        try:
            return self._roll(next(self._prompts), draw)
        except InputError as error:
            self._prompts.restore(before)
            raise Paused(str(error)) from error

    def _roll(self, samples: Sequence[Sample], draw: int) -> list[Rollout]:
        """A rollout of all processes, each of which asks, judges and scores its share."""
        scale, share = self.scale(), self._processes.share(samples)

        def sampled() -> Sampled:
            made = sample_rollouts(self._asker, share, draw, self._judge, scale)
            return replace(made, rollouts=self._scorer.score(made.rollouts))

        parts = self._processes.tell(self._processes.together(sampled))
        by_id = {rollout.sample_id: rollout for part in parts for rollout in part.rollouts}
        scored = [by_id[sample.id] for sample in samples if sample.id in by_id]
        unscored = sum(part.unscored for part in parts)
        if not scored:
            note = next((part.note for part in parts if part.note), "")
            raise InputError(
                f"rollout {draw}: the judge left {unscored} of {len(samples) * self._config.answers} answers "
                f"unscored{f' ({note})' if note else ''}, so that no prompt has {self._config.least}; "
                "look at the judge"
            )
        rollouts = credited(scored, self._config)
        self._numbers = {
            **summary(rollouts),
            "answers": float(sum(len(rollout.answers) for rollout in rollouts)),
            UNSCORED: float(unscored),
            "prompts_left_out": float(len(samples) - len(scored)),
            **({} if draw else {"scale_mean": scale.mean, "scale_std": scale.std}),
        }
        return rollouts
