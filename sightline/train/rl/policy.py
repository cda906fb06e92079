"""Policy-gradient learning from rollouts, within PPO's clip and near the reference.

One task (`train.task.Task`) serves RLOO, GRPO and PPO, which differ in settings; the formulas are in
`losses.policy_gradient`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.losses.policy_gradient import (
    clipped_surrogate,
    clipped_value_loss,
    generalized_advantages,
    group_relative,
    k1,
    k3,
    leave_one_out,
    rewards_by_token,
    row_means,
    row_sums,
    whiten,
)
from sightline.models.device import in_format
from sightline.models.encoding import encode_prefix
from sightline.models.packing import PackRow
from sightline.models.scalar_head import ScalarHead, save_head
from sightline.models.scorer import answer_states
from sightline.models.vlm import VLM, evaluating
from sightline.records.store import write_json
from sightline.train.log import StepRecord
from sightline.train.reference_cache import FrozenModel
from sightline.train.rl.config import GeneralizedConfig, RLConfig
from sightline.train.rl.rollouts import (
    SCALE_FILE,
    RewardScale,
    Rollout,
    SampledAnswer,
    table,
    table_from_rows,
    table_rows,
    token_mask,
)
from sightline.train.task import Losses, Part


@dataclass(frozen=True)
class Scorer:
    """Scores rollouts with the policy, its value head if any, and the reference; `per_pass` prompts at a time."""

    vlm: VLM
    head: ScalarHead | None
    reference: FrozenModel
    per_pass: int
    autocast: bool

    def score(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The rollouts with log-probs of policy and reference, and values; without gradients and dropout."""
        batches = [rollouts[start : start + self.per_pass] for start in range(0, len(rollouts), self.per_pass)]
        with evaluating(self.vlm):
            scored = [self._by_policy(batch) for batch in batches]
        with self.reference.open() as reference:
            return [rollout for batch in scored for rollout in self._by_reference(batch, reference)]

    def _by_policy(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        rows, mask = [pack_row(self.vlm, rollout) for rollout in rollouts], _mask(rollouts)
        logps, values = token_numbers(self.vlm, self.head, rows, autocast=self.autocast)
        columns = {"logps": logps} | ({} if values is None else {"values": values})
        return with_columns(
            rollouts, {name: table_rows(table(flat.cpu(), mask), mask) for name, flat in columns.items()}
        )

    def _by_reference(self, rollouts: Sequence[Rollout], reference: VLM) -> list[Rollout]:
        rows, mask = [pack_row(reference, rollout) for rollout in rollouts], _mask(rollouts)
        logps, _ = token_numbers(reference, None, rows, autocast=self.autocast)
        return with_columns(rollouts, {"ref_logps": table_rows(table(logps.cpu(), mask), mask)})


def pack_row(vlm: VLM, rollout: Rollout) -> PackRow:
    """The row of a rollout; its answers are the sampled tokens."""
    return PackRow(encode_prefix(vlm, rollout.prefix), tuple(answer.ids for answer in rollout.answers))


def token_numbers(
    vlm: VLM, head: ScalarHead | None, rows: Sequence[PackRow], *, autocast: bool
) -> tuple[Float[Tensor, "answer_token"], Float[Tensor, "answer_token"] | None]:
    """Log-probs (float32, nats) of all tokens, in order, and with a head the values before them; differentiable."""
    with in_format(vlm, autocast):
        states = answer_states(vlm, rows, logps=True)
    assert states.logps is not None
    return states.logps, None if head is None else head(states.before)


def assign_credit(rollouts: Sequence[Rollout], config: RLConfig) -> list[Rollout]:
    """Scored rollouts with advantages, and with returns if there are values."""
    answers = [answer for rollout in rollouts for answer in rollout.answers]
    mask = token_mask([len(answer.ids) for answer in answers])
    logps, reference = (
        table_from_rows(rows, mask, torch.float64)
        for rows in ([a.logps for a in answers], [a.ref_logps for a in answers])
    )
    rewards = torch.tensor([answer.reward for answer in answers], dtype=torch.float64)
    beta = config.kl.weight if config.kl.place == "reward" else 0.0
    penalties = torch.where(mask, k1(logps, reference), 0.0)
    if isinstance(config.advantage, GeneralizedConfig):
        values = table_from_rows([answer.values for answer in answers], mask, torch.float64)
        by_token = rewards_by_token(rewards, penalties, mask, beta=beta)
        discount, trace = config.advantage.discount, config.advantage.trace
        advantages, returns = generalized_advantages(by_token, values, mask, discount=discount, trace=trace)
        if config.advantage.whiten:
            advantages = whiten(advantages, mask)
        return with_columns(
            rollouts, {"advantages": table_rows(advantages, mask), "returns": table_rows(returns, mask)}
        )
    whole = rewards - beta * row_sums(penalties, mask)
    by_answer = _relative_advantages(whole, [len(rollout.answers) for rollout in rollouts], config)
    return with_columns(rollouts, {"advantages": table_rows(by_answer[:, None].expand(mask.shape), mask)})


def _mask(rollouts: Sequence[Rollout]) -> Bool[Tensor, "row token"]:
    return token_mask([len(answer.ids) for rollout in rollouts for answer in rollout.answers])


def _relative_advantages(
    rewards: Float[Tensor, "answer"], counts: Sequence[int], config: RLConfig
) -> Float[Tensor, "answer"]:
    """Advantages of answers relative to the prompt's other answers; a prompt may have lost some."""
    known: Bool[Tensor, "prompt answer"] = token_mask(counts)
    by_prompt = table(rewards, known)
    if config.advantage.name == "grpo":
        divide = config.advantage.divide_by_deviation
        return group_relative(by_prompt, known, divide_by_deviation=divide)[known]
    return leave_one_out(by_prompt, known)[known]


def with_columns(rollouts: Sequence[Rollout], columns: dict[str, list[tuple[float, ...]]]) -> list[Rollout]:
    """The rollouts with further per-token numbers, given answer by answer."""
    rows = iter([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])

    def filled(answer: SampledAnswer) -> SampledAnswer:
        return answer.model_copy(update=next(rows))

    return [
        rollout.model_copy(update={"answers": tuple(filled(answer) for answer in rollout.answers)})
        for rollout in rollouts
    ]


def summarize(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Numbers of credited rollouts for the log: means over their answers, or over all tokens.

    `reward` is the judge's raw score, `kl` (nats a token) the mean of log(policy / reference), `entropy` (nats a token)
    that of -log(policy), both estimated from the sampled tokens; `flat` is the share of prompts whose answers all have
    the same reward, `explained_variance` the share of the returns' variance that the values explain before their
    update.
    """
    answers = [answer for rollout in rollouts for answer in rollout.answers]
    scores = torch.tensor([answer.score for answer in answers], dtype=torch.float64)
    logps, reference = (
        torch.tensor([number for row in rows for number in row], dtype=torch.float64)
        for rows in ([a.logps for a in answers], [a.ref_logps for a in answers])
    )
    found = {
        "reward": float(scores.mean()),
        "reward_std": float(scores.std(unbiased=False)),
        "scaled_reward": sum(answer.reward for answer in answers) / len(answers),
        "kl": float((logps - reference).mean()),
        "entropy": float(-logps.mean()),
        "answer_tokens": len(logps) / len(answers),
        "finished": sum(answer.finished for answer in answers) / len(answers),
        "flat": sum(len({answer.reward for answer in r.answers}) == 1 for r in rollouts) / len(rollouts),
    }
    if answers[0].returns:
        returns = torch.tensor([number for a in answers for number in a.returns], dtype=torch.float64)
        values = torch.tensor([number for a in answers for number in a.values], dtype=torch.float64)
        spread = float(returns.var(unbiased=False))
        found["value"] = float(values.mean())
        if spread > 0:
            found["explained_variance"] = 1 - float((returns - values).var(unbiased=False)) / spread
    return found


Weigh = Callable[[Float[Tensor, "row token"], Bool[Tensor, "row token"]], Float[Tensor, "row"]]


class PolicyTask:
    """The task of rollouts. With a value `head`, values are learned beside the policy."""

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
        """The value head, if there is one."""
        return self._parts

    def begin(self, items: Sequence[Rollout]) -> Callable[[Sequence[Rollout]], Losses]:
        """Losses of rollouts, scaled so that their mean is the average that the config names."""
        answers, tokens = sum(len(item.answers) for item in items), sum(item.tokens for item in items)
        units = tokens if self._config.average == "tokens" else answers
        sums: Weigh = row_means if self._config.average == "means" else row_sums
        return lambda some: self._losses(some, sums, len(items) / units)

    def end(self, record: StepRecord) -> None:
        """Nothing to update."""

    def label(self, item: Rollout) -> str:
        """The sample's id."""
        return item.sample_id

    def stream(self, _item: Rollout) -> str:
        """Empty: there is one stream."""
        return ""

    def state(self) -> dict[str, Any]:
        """Empty: the value head is one of the parts."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""

    def save(self, directory: Path) -> None:
        """Save the reward scale and the value head beside the adapter."""
        write_json(directory / SCALE_FILE, self._scale())
        if self._head is not None:
            save_head(self._head, "value", directory)

    def _losses(self, items: Sequence[Rollout], weigh: Weigh, factor: float) -> Losses:
        rows = [pack_row(self._vlm, item) for item in items]
        flat, flat_values = token_numbers(self._vlm, self._head, rows, autocast=self._autocast)
        answers = [answer for item in items for answer in item.answers]
        mask = token_mask([len(answer.ids) for answer in answers], flat.device)
        logps, reference = (
            table(flat, mask),
            table_from_rows([answer.ref_logps for answer in answers], mask, flat.dtype),
        )
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
        self, answers: Sequence[SampledAnswer], logps: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"]
    ) -> tuple[Float[Tensor, "row token"], Bool[Tensor, "row token"]]:
        """The loss of each token, and a mask of tokens whose gradient is clipped."""
        advantages = table_from_rows([answer.advantages for answer in answers], mask, logps.dtype)
        clip = self._config.clip
        if clip is None:  # the ratio is 1 and its gradient that of log pi: REINFORCE
            return clipped_surrogate(logps, logps, advantages, low=math.inf, high=math.inf)
        old = table_from_rows([answer.logps for answer in answers], mask, logps.dtype)
        return clipped_surrogate(logps, old, advantages, low=clip, high=clip)


def _value_loss(
    answers: Sequence[SampledAnswer],
    values: Float[Tensor, "row token"],
    mask: Bool[Tensor, "row token"],
    config: GeneralizedConfig,
) -> Float[Tensor, "row token"]:
    old, returns = (
        table_from_rows(rows, mask, values.dtype)
        for rows in ([a.values for a in answers], [a.returns for a in answers])
    )
    return clipped_value_loss(values, old, returns, clip=math.inf if config.value_clip is None else config.value_clip)


def _by_item(by_answer: Float[Tensor, "row"], counts: Sequence[int]) -> Float[Tensor, "item"]:
    """Sums over each item's answers."""
    return torch.stack([part.sum() for part in by_answer.split(list(counts))])
