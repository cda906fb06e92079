"""Learning from preference pairs: policy and reference score both answers of a pair, and an objective compares them.

Which loss that is, and what it needs, is asked of `losses`; the scores come from `reference`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sightline.losses.objective import Objective
from sightline.losses.types import LossOut, Need, PairLogps
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.train.log import StepRecord
from sightline.train.reference import Reference, score_pairs
from sightline.train.task import Losses, Part

#: Where the provenance of a pair says which stream of a mixture it belongs to.
STREAM = "stream"


class PreferenceTask:
    """The task of preference pairs (`task.Task`), their image paths absolute."""

    def __init__(self, vlm: VLM, objective: Objective, reference: Reference, *, autocast: bool) -> None:
        self._vlm, self._objective, self._reference, self._autocast = vlm, objective, reference, autocast

    @property
    def parts(self) -> Mapping[str, Part]:
        """None: the model's own weights are all that is trained."""
        return {}

    def begin(self, _items: Sequence[Pair]) -> Callable[[Sequence[Pair]], Losses]:
        """Losses of pairs, each of which depends on the pair alone."""
        return self._losses

    def end(self, record: StepRecord) -> None:
        """Nothing moves with the steps."""

    def label(self, item: Pair) -> str:
        """The pair's id."""
        return item.id

    def stream(self, item: Pair) -> str:
        """What the pair's provenance says."""
        return str(item.provenance.get(STREAM, ""))

    def state(self) -> dict[str, Any]:
        """Empty: reference log-probs are a function of the pair."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""

    def save(self, directory: Path) -> None:
        """Nothing to write beside the adapter."""

    def _losses(self, pairs: Sequence[Pair]) -> Losses:
        reference = self._reference(pairs) if Need.REFERENCE in self._objective.needs else None
        policy = score_pairs(self._vlm, pairs, autocast=self._autocast)
        out = self._objective(policy, () if reference is None else (reference,))
        return Losses(out.loss, columns_of(out, policy, reference))


def columns_of(out: LossOut, policy: PairLogps, reference: PairLogps | None) -> dict[str, Tensor]:
    """What the log shows of pairs."""
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
    if reference is not None:
        columns |= {"chosen_ref_logps": reference.chosen, "rejected_ref_logps": reference.rejected}
    return columns
