"""Learning from rollouts: tokens with an advantage become likelier, within PPO's clip and near the reference.

One task (`train.task.Task`) for RLOO, GRPO and PPO, which differ by settings; the formulas are those of
`losses.policy_gradient`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.losses.policy_gradient import clipped_surrogate, clipped_value_loss, k3, row_means, row_sums
from sightline.models.scalar_head import ScalarHead, save_head
from sightline.models.vlm import VLM
from sightline.records.store import write_json
from sightline.train.log import StepRecord
from sightline.train.rl.config import GeneralizedConfig, RLConfig
from sightline.train.rl.credit import numbers_of, pack_row
from sightline.train.rl.padding import mask_of, table, table_of
from sightline.train.rl.reward_scale import FILE, RewardScale
from sightline.train.rl.rollout import Rollout, Said
from sightline.train.task import Losses, Part

Weigh = Callable[[Float[Tensor, "row token"], Bool[Tensor, "row token"]], Float[Tensor, "row"]]


class PolicyTask:
    """The task of rollouts. With a value `head`, their values are learned beside the policy."""

    def __init__(
        self,
        vlm: VLM,
        config: RLConfig,
        head: ScalarHead | None,
        scale: Callable[[], RewardScale],
        *,
        autocast: bool,
    ) -> None:
        self._vlm, self._config, self._head, self._autocast = vlm, config, head, autocast
        self._scale = scale
        rate = config.advantage.value_lr if isinstance(config.advantage, GeneralizedConfig) else None
        self._parts = {} if head is None else {"value_head": Part(head, rate)}

    @property
    def parts(self) -> Mapping[str, Part]:
        """The value head, where there is one."""
        return self._parts

    def begin(self, items: Sequence[Rollout]) -> Callable[[Sequence[Rollout]], Losses]:
        """Losses of rollouts, scaled so that their mean is the mean that the config names."""
        answers, tokens = sum(len(item.answers) for item in items), sum(item.tokens for item in items)
        units = tokens if self._config.average == "tokens" else answers
        sums: Weigh = row_means if self._config.average == "means" else row_sums
        return lambda some: self._losses(some, sums, len(items) / units)

    def end(self, record: StepRecord) -> None:
        """Nothing moves with the steps."""

    def label(self, item: Rollout) -> str:
        """The sample's id."""
        return item.sample_id

    def stream(self, _item: Rollout) -> str:
        """There is one stream."""
        return ""

    def state(self) -> dict[str, Any]:
        """Empty: the value head is one of the parts."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""

    def save(self, directory: Path) -> None:
        """The scale of rewards and the value head, beside the adapter."""
        write_json(directory / FILE, self._scale())
        if self._head is not None:
            save_head(self._head, "value", directory)

    def _losses(self, items: Sequence[Rollout], weigh: Weigh, factor: float) -> Losses:
        rows = [pack_row(self._vlm, item) for item in items]
        flat, flat_values = numbers_of(self._vlm, self._head, rows, autocast=self._autocast)
        answers = [answer for item in items for answer in item.answers]
        mask = mask_of([len(answer.ids) for answer in answers], flat.device)
        logps, reference = table(flat, mask), table_of([answer.ref_logps for answer in answers], mask, flat.dtype)
        by_token, clipped = self._surrogate(answers, logps, mask)
        shown = {"clip_share": clipped.to(flat.dtype), "policy_kl": logps - reference}
        if self._config.kl.place == "loss":
            by_token = by_token + self._config.kl.weight * k3(logps, reference)
        if flat_values is not None and isinstance(self._config.advantage, GeneralizedConfig):
            shown["value_loss"] = _value_loss(answers, table(flat_values, mask), mask, self._config.advantage)
            by_token = by_token + self._config.advantage.value_weight * shown["value_loss"]
        counts = [len(item.answers) for item in items]
        tokens = torch.tensor([item.tokens for item in items], device=flat.device)
        columns = {name: _by_item(row_sums(c.detach(), mask), counts) / tokens for name, c in shown.items()}
        return Losses(_by_item(weigh(by_token, mask), counts) * factor, columns)

    def _surrogate(
        self, answers: Sequence[Said], logps: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"]
    ) -> tuple[Float[Tensor, "row token"], Bool[Tensor, "row token"]]:
        """The loss of each token, and where clipping has stopped its gradient."""
        advantages = table_of([answer.advantages for answer in answers], mask, logps.dtype)
        clip = self._config.clip
        if clip is None:  # the ratio is 1 and its gradient that of log pi: REINFORCE
            return clipped_surrogate(logps, logps, advantages, low=math.inf, high=math.inf)
        old = table_of([answer.logps for answer in answers], mask, logps.dtype)
        return clipped_surrogate(logps, old, advantages, low=clip, high=clip)


def _value_loss(
    answers: Sequence[Said], values: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"], how: GeneralizedConfig
) -> Float[Tensor, "row token"]:
    old, returns = (
        table_of(rows, mask, values.dtype) for rows in ([a.values for a in answers], [a.returns for a in answers])
    )
    return clipped_value_loss(values, old, returns, clip=math.inf if how.value_clip is None else how.value_clip)


def _by_item(by_answer: Float[Tensor, "row"], counts: Sequence[int]) -> Float[Tensor, "item"]:
    """Sums over each item's answers."""
    return torch.stack([part.sum() for part in by_answer.split(list(counts))])
