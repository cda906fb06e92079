"""Learning from preference pairs: policy and references score the answers of a pair, and an objective compares them.

Which loss that is, and what it needs, is asked of `losses`; what is scored is laid out by `scoring`.
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
from sightline.losses.types import LossOut, Need, PairLogps
from sightline.models.scorer import flat_logps
from sightline.models.vlm import VLM, evaluating
from sightline.records.rows import Pair
from sightline.train.log import StepRecord
from sightline.train.reference_cache import Reference
from sightline.train.scoring import Scoring, mismatched, score_with_entropy
from sightline.train.task import Losses, Part

#: Where the provenance of a pair says which stream of a mixture it belongs to.
STREAM = "stream"
LEVEL, ONLINE = "level", "online"


@dataclass
class RunningMean:
    """The mean of all levels seen, or, with a `momentum`, one that forgets: m <- momentum m + (1 - momentum) level.

    BCO's shift is such a mean in MPO (arXiv 2411.10442), which leaves the kind open; it begins at 0, which is what the
    rewards are while policy and reference agree. It moves once a step, after the step.
    """

    momentum: float | None = None
    value: float = 0.0
    steps: int = 0

    def move(self, level: float) -> None:
        """Take in the mean level of one step."""
        self.steps += 1
        kept = 1 - 1 / self.steps if self.momentum is None else self.momentum
        self.value = kept * self.value + (1 - kept) * level


class PreferenceTask:
    """The task of preference pairs (`task.Task`), their image paths absolute.

    `references` are in order, the primary one first; `slice_size` bounds the pairs of a pass without gradients.
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
        needed = Need.REFERENCE in objective.needs or Need.REFERENCES in objective.needs
        self._references = references if needed else ()
        self._scoring = scoring or Scoring()
        self._shift = shift or RunningMean()
        self._slice = slice_size

    @property
    def parts(self) -> Mapping[str, Part]:
        """None: the model's own weights are all that is trained."""
        return {}

    def begin(self, items: Sequence[Pair]) -> Callable[[Sequence[Pair]], Losses]:
        """Losses of pairs, each of which depends on the pair and, for KTO, on one number of the whole step."""
        if Need.MISMATCHED not in self._objective.needs:
            return partial(self._losses, strangers=None)
        return partial(self._losses, strangers=self._strangers(items))

    def end(self, record: StepRecord) -> None:
        """The running mean takes the step's level in."""
        if Need.SHIFT in self._objective.needs:
            self._shift.move(record.numbers[LEVEL])

    def label(self, item: Pair) -> str:
        """The pair's id."""
        return item.id

    def stream(self, item: Pair) -> str:
        """What the pair's provenance says."""
        return str(item.provenance.get(STREAM, ""))

    def state(self) -> dict[str, Any]:
        """The running mean; reference log-probs are a function of the pair."""
        return {"shift": self._shift.value, "steps": self._shift.steps} if Need.SHIFT in self._objective.needs else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the running mean."""
        if state:
            self._shift.value, self._shift.steps = state["shift"], state["steps"]

    def save(self, directory: Path) -> None:
        """Nothing to write beside the adapter."""

    def _losses(self, pairs: Sequence[Pair], *, strangers: Sequence[float] | None) -> Losses:
        references = [reference(pairs) for reference in self._references]
        policy, entropy = score_with_entropy(self._vlm, pairs, self._scoring, autocast=self._autocast)
        if strangers is not None:
            policy, *references = [
                replace(logps, mismatched=torch.full_like(logps.chosen, mean))
                for logps, mean in zip((policy, *references), strangers, strict=True)
            ]
        out = self._objective(policy, references, shift=self._shift.value)
        columns = {**columns_of(out, policy, references), "entropy": entropy}
        own = torch.tensor([self.stream(pair) == ONLINE for pair in pairs], device=out.loss.device)
        return Losses(out.loss, columns | _of_own_answers(policy, references, own))

    def _strangers(self, pairs: Sequence[Pair]) -> list[float]:
        """The mean log-prob of other pairs' answers, under the policy, then under each reference.

        Every pair is then given the step's mean: KTO's estimate is linear in these numbers before it is cut at zero, so
        it does not depend on how the step is split. A step of one pair has no stranger, and 0 says that nothing moved.
        """
        if len(pairs) < 2:
            return [0.0] * (1 + len(self._references))
        asked = mismatched(pairs)
        sums: list[Tensor] = []
        with evaluating(self._vlm):
            for start in range(0, len(asked), self._slice):
                values, _ = flat_logps(self._vlm, asked[start : start + self._slice], autocast=self._autocast)
                sums.append(values.sum(-1))
        scored = [torch.cat(sums), *(reference.sums(asked) for reference in self._references)]
        return [float(column.double().mean()) for column in scored]


def columns_of(out: LossOut, policy: PairLogps, references: Sequence[PairLogps]) -> dict[str, Tensor]:
    """What the log shows of pairs by their log-probs: `StepRecord`'s fields, and what a running mean takes in."""
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


def _of_own_answers(policy: PairLogps, references: Sequence[PairLogps], own: Bool[Tensor, "pair"]) -> dict[str, Tensor]:
    """Of pairs whose answers are both the policy's samples: their length, and the KL to the primary reference.

    The latter is the mean of log policy - log reference, by token, over samples of the policy (of its last refresh):
    an estimate of the KL divergence without bias where the policy is still the same. For other answers it is none, so
    there the numbers are NaN, which the log leaves out.
    """
    chosen_tokens, rejected_tokens = policy.lengths()
    tokens = chosen_tokens + rejected_tokens
    columns = {"answer_tokens": tokens / 2}
    if references:
        gain = policy.chosen + policy.rejected - references[0].chosen - references[0].rejected
        columns["kl"] = gain / tokens
    return {name: torch.where(own, column.detach().double(), torch.nan) for name, column in columns.items()}
