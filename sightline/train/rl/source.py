"""Source of rollouts of the present policy, distributed over the steps that learn from them.

A rollout of many prompts is sampled at once, then drawn in minibatches, several times if the config says so. Rollouts
that wait are in `state`, so that a killed run resumes with the exact tokens of its former policy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from sightline.errors import InputError
from sightline.judges.judge import Judge
from sightline.models.processes import Processes
from sightline.records.rows import Sample
from sightline.train.rl.config import RLConfig
from sightline.train.rl.policy import Scorer, assign_credit, summarize
from sightline.train.rl.rollouts import PolicySampler, RewardScale, Rollout, RolloutBatch, sample_rollouts
from sightline.train.sources import Paused, Source

UNSCORED = "unscored"  # the log's number of answers that no judge scored


class RolloutSource:
    """Prompts in, rollouts out (`sources.Source`).

    `prompts` yields those of one rollout at a time, enough for `minibatches` steps; `measure` finds the reward scale
    before the first rollout.
    """

    def __init__(
        self,
        prompts: Source[Sample],
        sampler: PolicySampler,
        judge: Judge,
        scorer: Scorer,
        measure: Callable[[], RewardScale],
        *,
        max_steps: int | None,
        processes: Processes = Processes(),  # noqa: B008 - frozen
    ) -> None:
        self._prompts, self._sampler, self._judge, self._scorer = prompts, sampler, judge, scorer
        self._measure, self._processes = measure, processes
        self._steps = min(prompts.steps * self._config.updates, max_steps or prompts.steps * self._config.updates)
        self._drawn = 0
        self._scale: RewardScale | None = None
        self._rollouts: list[Rollout] = []
        self._numbers: dict[str, float] = {}

    @property
    def _config(self) -> RLConfig:
        return self._sampler.config

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def repeats(self) -> bool:
        """False: samples never repeat."""
        return False

    def scale(self) -> RewardScale:
        """The reward scale, measured at the first call and fixed from then on."""
        if self._scale is None:
            self._scale = self._processes.on_first(self._measure)
        return self._scale

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[Rollout]:
        if self._drawn >= self._steps:
            raise StopIteration
        draw, update = divmod(self._drawn, self._config.updates)
        self._numbers = {}
        if update == 0:
            self._rollouts = self._next_rollouts(draw)
        epoch, batch = divmod(update, self._config.minibatches)
        order = np.random.default_rng([self._sampler.seed, draw, epoch]).permutation(len(self._rollouts))
        parts = np.array_split(order, min(self._config.minibatches, len(order)))  # if few are left, each repeats
        self._drawn += 1
        return [self._rollouts[index] for index in parts[batch % len(parts)]]

    def upcoming(self) -> Sequence[Any]:
        """Nothing: the policy's answers do not exist yet."""
        return ()

    def numbers(self) -> Mapping[str, float]:
        """The means of a rollout (`policy.summarize`) at its first step, and counts of what was left out."""
        return self._numbers

    def dropped(self) -> Mapping[str, int]:
        """Nothing here: each step's numbers count what was left out."""
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
        """Nothing to release: rollouts are sampled in process."""

    def _next_rollouts(self, draw: int) -> list[Rollout]:
        """Rollouts of the next prompts; if the judge is down, these prompts remain next."""
        before = self._prompts.state()
        try:
            return self._make_rollouts(next(self._prompts), draw)
        except InputError as error:
            self._prompts.restore(before)
            raise Paused(str(error)) from error

    def _make_rollouts(self, samples: Sequence[Sample], draw: int) -> list[Rollout]:
        """The rollouts of all processes, each of which samples, judges and scores its share."""
        scale, share = self.scale(), self._processes.share(samples)

        def sampled() -> RolloutBatch:
            batch = sample_rollouts(self._sampler, share, draw, self._judge, scale)
            return replace(batch, rollouts=self._scorer.score(batch.rollouts))

        parts = self._processes.gather(self._processes.on_all(sampled))
        by_id = {rollout.sample_id: rollout for part in parts for rollout in part.rollouts}
        scored = [by_id[sample.id] for sample in samples if sample.id in by_id]
        unscored = sum(part.unscored for part in parts)
        if not scored:
            note = next((part.note for part in parts if part.note), "")
            raise InputError(
                f"rollout {draw}: the judge left {unscored} of {len(samples) * self._config.answers} answers "
                f"unscored{f' ({note})' if note else ''}, so no prompt has {self._config.min_answers}; "
                "check the judge"
            )
        rollouts = assign_credit(scored, self._config)
        self._numbers = {
            **summarize(rollouts),
            "answers": float(sum(len(rollout.answers) for rollout in rollouts)),
            UNSCORED: float(unscored),
            "prompts_left_out": float(len(samples) - len(scored)),
            **({} if draw else {"scale_mean": scale.mean, "scale_std": scale.std}),
        }
        return rollouts
