"""From scored answers to what each of their tokens is worth: log-probs, values, the KL penalty, advantages.

Policy and reference score the very tokens that were sampled, each prefix once for all of its answers. The formulas are
`losses.advantages`; here they are fed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.losses.advantages import (
    generalized_advantages,
    group_relative,
    leave_one_out,
    rewards_by_token,
    whiten,
)
from sightline.losses.policy_gradient import k1, row_sums
from sightline.models.encoding import encode_prefix
from sightline.models.packing import PackRow
from sightline.models.precision import in_format
from sightline.models.scalar_head import ScalarHead
from sightline.models.scorer import answer_states
from sightline.models.vlm import VLM, evaluating
from sightline.train.frozen import Frozen
from sightline.train.rl.config import GeneralizedConfig, RLConfig
from sightline.train.rl.padding import mask_of, rows_of, table, table_of
from sightline.train.rl.rollout import Rollout, Said


@dataclass(frozen=True)
class Scorer:
    """What scores rollouts: the policy with its value head, if it has one, and the reference; some prompts a pass."""

    vlm: VLM
    head: ScalarHead | None
    reference: Frozen
    per_pass: int
    autocast: bool

    def score(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The rollouts with log-probs of policy and reference, and values; without gradients and without dropout."""
        batches = [rollouts[start : start + self.per_pass] for start in range(0, len(rollouts), self.per_pass)]
        with evaluating(self.vlm):
            scored = [self._by_policy(batch) for batch in batches]
        with self.reference.opened() as reference:
            return [rollout for batch in scored for rollout in self._by_reference(batch, reference)]

    def _by_policy(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        rows, mask = [pack_row(self.vlm, rollout) for rollout in rollouts], _mask(rollouts)
        logps, values = numbers_of(self.vlm, self.head, rows, autocast=self.autocast)
        columns = {"logps": logps} | ({} if values is None else {"values": values})
        return with_columns(rollouts, {name: rows_of(table(flat.cpu(), mask), mask) for name, flat in columns.items()})

    def _by_reference(self, rollouts: Sequence[Rollout], reference: VLM) -> list[Rollout]:
        rows, mask = [pack_row(reference, rollout) for rollout in rollouts], _mask(rollouts)
        logps, _ = numbers_of(reference, None, rows, autocast=self.autocast)
        return with_columns(rollouts, {"ref_logps": rows_of(table(logps.cpu(), mask), mask)})


def pack_row(vlm: VLM, rollout: Rollout) -> PackRow:
    """The row of a rollout: its answers are the sampled tokens themselves."""
    return PackRow(encode_prefix(vlm, rollout.prefix), tuple(answer.ids for answer in rollout.answers))


def numbers_of(
    vlm: VLM, head: ScalarHead | None, rows: Sequence[PackRow], *, autocast: bool
) -> tuple[Float[Tensor, "answer_token"], Float[Tensor, "answer_token"] | None]:
    """Log-probs (float32, nats) of all tokens, in order, and with a head the values before them; differentiable."""
    with in_format(vlm, autocast):
        states = answer_states(vlm, rows, logps=True)
    assert states.logps is not None
    return states.logps, None if head is None else head(states.before)


def credited(rollouts: Sequence[Rollout], config: RLConfig) -> list[Rollout]:
    """Scored rollouts with advantages, and returns where there are values."""
    answers = [answer for rollout in rollouts for answer in rollout.answers]
    mask = mask_of([len(answer.ids) for answer in answers])
    logps, reference = (
        table_of(rows, mask, torch.float64) for rows in ([a.logps for a in answers], [a.ref_logps for a in answers])
    )
    rewards = torch.tensor([answer.reward for answer in answers], dtype=torch.float64)
    beta = config.kl.weight if config.kl.place == "reward" else 0.0
    penalties = torch.where(mask, k1(logps, reference), 0.0)
    if isinstance(config.advantage, GeneralizedConfig):
        values = table_of([answer.values for answer in answers], mask, torch.float64)
        by_token = rewards_by_token(rewards, penalties, mask, beta=beta)
        discount, trace = config.advantage.discount, config.advantage.trace
        advantages, returns = generalized_advantages(by_token, values, mask, discount=discount, trace=trace)
        if config.advantage.whiten:
            advantages = whiten(advantages, mask)
        return with_columns(rollouts, {"advantages": rows_of(advantages, mask), "returns": rows_of(returns, mask)})
    whole = rewards - beta * row_sums(penalties, mask)
    by_answer = _among_siblings(whole, [len(rollout.answers) for rollout in rollouts], config)
    return with_columns(rollouts, {"advantages": rows_of(by_answer[:, None].expand(mask.shape), mask)})


def _mask(rollouts: Sequence[Rollout]) -> Bool[Tensor, "row token"]:
    return mask_of([len(answer.ids) for rollout in rollouts for answer in rollout.answers])


def _among_siblings(
    rewards: Float[Tensor, "answer"], counts: Sequence[int], config: RLConfig
) -> Float[Tensor, "answer"]:
    """Advantages of answers over others to their prompt; prompts may have lost some."""
    known: Bool[Tensor, "prompt answer"] = mask_of(counts)
    by_prompt = table(rewards, known)
    if config.advantage.name == "grpo":
        divide = config.advantage.divide_by_deviation
        return group_relative(by_prompt, known, divide_by_deviation=divide)[known]
    return leave_one_out(by_prompt, known)[known]


def with_columns(rollouts: Sequence[Rollout], columns: dict[str, list[tuple[float, ...]]]) -> list[Rollout]:
    """The rollouts with further numbers by token, given answer by answer."""
    rows = iter([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])

    def filled(answer: Said) -> Said:
        return answer.model_copy(update=next(rows))

    return [
        rollout.model_copy(update={"answers": tuple(filled(answer) for answer in rollout.answers)})
        for rollout in rollouts
    ]


def summary(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What the log shows of credited rollouts: means over their answers, or over all tokens.

    `reward` is the judge's score as it is, `kl` (nats a token) the mean of log(policy / reference), `entropy` (nats a
    token) that of -log(policy), both estimates from the sampled tokens; `flat` is the share of prompts whose answers
    all have the same reward, `explained_variance` what the values told of the returns before they learned from them.
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
