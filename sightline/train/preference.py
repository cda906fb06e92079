"""Learning from preference pairs: policy and references score a pair's answers, and an objective compares them.

`losses` defines the loss and its requirements; `scoring` lays out what is scored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from sightline.losses.objective import Objective
from sightline.losses.types import LossOut, PairLogps, Requirement
from sightline.models.device import to_device
from sightline.models.scorer import flat_logps
from sightline.models.vlm import VLM, evaluating
from sightline.records.rows import Pair
from sightline.train.log import StepRecord
from sightline.train.reference_cache import Reference
from sightline.train.scoring import Scoring, mismatched_requests, score_with_entropy
from sightline.train.task import Losses, Part

#: Provenance key for a pair's stream in a mixture.
STREAM = "stream"
LEVEL, ONLINE = "level", "online"


@dataclass
class RunningMean:
    """The mean of all levels so far or, with `momentum`, an exponential one: m <- momentum m + (1 - momentum) level.

    BCO's shift is such a mean in MPO (arXiv 2411.10442), which does not specify the kind; it starts at 0, the rewards'
    value while policy and reference agree. It moves once per step, after the step.
    """

    momentum: float | None = None
    value: float = 0.0
    steps: int = 0

    def move(self, level: float) -> None:
        """Include the mean level of one step."""
        self.steps += 1
        kept = 1 - 1 / self.steps if self.momentum is None else self.momentum
        self.value = kept * self.value + (1 - kept) * level


class PreferenceTask:
    """The task of preference pairs (`task.Task`) with absolute image paths.

    `references` are in order, the primary one first; `slice_size` bounds the pairs per pass without gradients.
    """

    def __init__(
        self,
        vlm: VLM,
        objective: Objective,
        *references: Reference,
        autocast: bool,
        scoring: Scoring | None = None,
        shift: RunningMean | None = None,
        slice_size: int = 8,
    ) -> None:
        self._vlm, self._objective, self._autocast = vlm, objective, autocast
        needed = Requirement.REFERENCE in objective.needs or Requirement.REFERENCES in objective.needs
        self._references = references if needed else ()
        self._scoring = scoring or Scoring()
        self._shift = shift or RunningMean()
        self._slice = slice_size

    @property
    def parts(self) -> Mapping[str, Part]:
        """None: only the model's own weights are trained."""
        return {}

    def begin(self, items: Sequence[Pair]) -> Callable[[Sequence[Pair]], Losses]:
        """Losses of pairs; each depends on its pair and, for KTO, on one number of the whole step."""
        if Requirement.MISMATCHED not in self._objective.needs:
            return partial(self._losses, mismatched_means=None)
        return partial(self._losses, mismatched_means=self._mismatched_means(items))

    def end(self, record: StepRecord) -> None:
        """Add the step's level to the running mean."""
        if Requirement.SHIFT in self._objective.needs:
            self._shift.move(record.numbers[LEVEL])

    def label(self, item: Pair) -> str:
        """The pair's id."""
        return item.id

    def stream(self, item: Pair) -> str:
        """The stream in the pair's provenance."""
        return str(item.provenance.get(STREAM, ""))

    def state(self) -> dict[str, Any]:
        """The running mean; reference log-probs are a function of the pair."""
        return (
            {"shift": self._shift.value, "steps": self._shift.steps}
            if Requirement.SHIFT in self._objective.needs
            else {}
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the running mean."""
        if state:
            self._shift.value, self._shift.steps = state["shift"], state["steps"]

    def save(self, directory: Path) -> None:
        """Nothing to write beside the adapter."""

    def _losses(self, pairs: Sequence[Pair], *, mismatched_means: Sequence[Tensor] | None) -> Losses:
        references = [reference(pairs) for reference in self._references]
        policy, entropy = score_with_entropy(self._vlm, pairs, self._scoring, autocast=self._autocast)
        if mismatched_means is not None:
            policy, *references = [
                replace(logps, mismatched=mean.to(logps.chosen.dtype).expand_as(logps.chosen))
                for logps, mean in zip((policy, *references), mismatched_means, strict=True)
            ]
        out = self._objective(policy, references, shift=self._shift.value)
        columns = {**log_columns(out, policy, references), "entropy": entropy}
        own = to_device(torch.tensor([self.stream(pair) == ONLINE for pair in pairs]), out.loss.device)
        return Losses(out.loss, columns | _own_answer_columns(policy, references, own))

    def _mismatched_means(self, pairs: Sequence[Pair]) -> list[Tensor]:
        """The mean log-prob of other pairs' answers, under the policy, then under each reference.

        Every pair uses the step's mean: KTO's estimate is linear in these numbers before it is clamped at zero, so it
        does not depend on how the step is split. A step of one pair has no mismatched answers; it uses 0, as if nothing
        had moved.
        """
        if len(pairs) < 2:
            return [torch.zeros((), device=self._vlm.device)] * (1 + len(self._references))
        requests = mismatched_requests(pairs)
        sums: list[Tensor] = []
        with evaluating(self._vlm):
            for start in range(0, len(requests), self._slice):
                values, _ = flat_logps(self._vlm, requests[start : start + self._slice], autocast=self._autocast)
                sums.append(values.sum(-1))
        scored = [torch.cat(sums), *(reference.first_answer_sums(requests) for reference in self._references)]
        return [column.double().mean() for column in scored]


def log_columns(out: LossOut, policy: PairLogps, references: Sequence[PairLogps]) -> dict[str, Tensor]:
    """The log's columns of pairs from their log-probs: the fields of `StepRecord`, and the level for a running mean."""
    chosen_tokens, rejected_tokens = policy.lengths()
    columns = {
        "chosen_reward": out.chosen_reward,
        "rejected_reward": out.rejected_reward,
        "margin": out.chosen_reward - out.rejected_reward,
        "accuracy": out.chosen_reward > out.rejected_reward,
        "chosen_logps": policy.chosen,
        "rejected_logps": policy.rejected,
        "chosen_tokens": chosen_tokens,
        "rejected_tokens": rejected_tokens,
    }
    if out.level is not None:
        columns[LEVEL] = out.level
    if references:
        primary = references[0]
        columns |= {
            "chosen_ref_logps": primary.chosen,
            "rejected_ref_logps": primary.rejected,
        }
    return columns


def _own_answer_columns(
    policy: PairLogps, references: Sequence[PairLogps], own: Bool[Tensor, "pair"]
) -> dict[str, Tensor]:
    """Length of the answers that the policy sampled itself, and their KL to the primary reference.

    The KL is the mean of log policy - log reference, per token, over samples of the policy (of its last refresh): an
    unbiased estimate as long as the policy is unchanged. For other answers it is no estimate, so the numbers are NaN
    there, which the log skips.
    """
    chosen_tokens, rejected_tokens = policy.lengths()
    tokens = chosen_tokens + rejected_tokens
    columns = {"answer_tokens": tokens / 2}
    if references:
        gain = policy.chosen + policy.rejected - references[0].chosen - references[0].rejected
        columns["kl"] = gain / tokens
    return {name: torch.where(own, column.detach().double(), torch.nan) for name, column in columns.items()}
