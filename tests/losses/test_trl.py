"""TRL's own loss code on the same log-probs: equal, or equal after the conversion that each test names.

TRL's trainers are created without their constructors and with a model that returns fixed log-probs. TRL computes
advantages during generation, so they cannot be called separately; it has no PPO with values and no GAE. Importing TRL
takes half a minute with a cold disk, hence `slow`.
"""

from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sightline.losses.objective import Term, make_objective
from sightline.losses.policy_gradient import clipped_surrogate, group_relative, k3, row_means, row_sums
from sightline.losses.reference_free import bradley_terry
from sightline.losses.types import PairLogps
from tests.losses.example_pairs import column

pytestmark = pytest.mark.slow

PAIRS, WIDTH, BETA, EPSILON = 5, 9, 0.3, 0.1


class ScriptedModel(nn.Module):
    """A model that returns the given outputs one after the other."""

    def __init__(self, *outputs: SimpleNamespace) -> None:
        super().__init__()
        self._outputs: Iterator[SimpleNamespace] = iter(outputs)

    def forward(self, **_: object) -> SimpleNamespace:
        return next(self._outputs)


class Alone:
    """The part of an Accelerator of one CPU process that losses use."""

    device = torch.device("cpu")
    sync_gradients = True

    def gather(self, values: Tensor) -> Tensor:
        return values

    gather_for_metrics = gather

    def reduce(self, values: Tensor, reduction: str = "sum") -> Tensor:
        return values


def trl(name: str, module: str = "trl") -> Any:
    return getattr(pytest.importorskip(module, reason="TRL comes with the extra [bench]"), name)


def trainer(kind: Any, model: nn.Module, **settings: object) -> Any:
    instance = object.__new__(kind)
    common = {
        "model": model,
        "accelerator": Alone(),
        "aux_loss_enabled": False,
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }
    for name, value in {**common, "_metrics": defaultdict(lambda: defaultdict(list)), **settings}.items():
        setattr(instance, name, value)
    return instance


def rows(seed: int, lengths: list[int]) -> Tensor:
    """Log-probs of answers by token, 0 where an answer is over."""
    drawn = -3 * torch.rand(len(lengths), WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn * masks(lengths)


def masks(lengths: list[int]) -> Tensor:
    return torch.arange(WIDTH)[None] < torch.tensor(lengths)[:, None]


def output(logps: Tensor) -> SimpleNamespace:
    """A model output with the other values that TRL logs."""
    zeros = torch.zeros_like(logps)
    return SimpleNamespace(log_probs=logps, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def pairs(logps: Tensor, lengths: list[int]) -> PairLogps:
    half = len(lengths) // 2
    sums, counts = logps.sum(1), torch.tensor(lengths)
    return PairLogps(sums[:half], sums[half:], counts[:half], counts[half:])


def theirs(lengths: list[int], types: list[str], weights: list[float] | None = None, beta: float = BETA) -> float:
    """The loss of DPOTrainer for the log-probs of seed 0 against those of seed 1."""
    policy, reference = rows(0, lengths), rows(1, lengths).sum(1)
    half = len(lengths) // 2
    instance = trainer(
        trl("DPOTrainer"),
        ScriptedModel(output(policy)),
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=types,
        loss_weights=weights or [1.0] * len(types),
        beta=beta,
        label_smoothing=EPSILON,
        use_weighting=False,
    )
    inputs = {
        "input_ids": torch.zeros(len(lengths), WIDTH + 1, dtype=torch.long),
        "attention_mask": torch.ones(len(lengths), WIDTH + 1),
        "completion_mask": torch.cat([torch.zeros(len(lengths), 1), masks(lengths)], 1).long(),
        "ref_chosen_logps": reference[:half],
        "ref_rejected_logps": reference[half:],
    }
    return float(instance._compute_loss(instance.model, inputs, return_outputs=False))


def ours(lengths: list[int], *terms: Term) -> Tensor:
    policy, reference = (pairs(rows(seed, lengths), lengths) for seed in (0, 1))
    return make_objective(terms)(policy, [reference]).loss


LENGTHS = [3, 9, 5, 1, 7, 2, 2, 8, 6, 4]  # of the chosen answers, then of the rejected ones


@pytest.mark.parametrize(
    ("their_type", "name"),
    [
        ("sigmoid", "dpo"),
        ("sigmoid_norm", "dpo-normalized"),
        ("hinge", "hinge"),
        ("bco_pair", "bco-unshifted"),
        ("robust", "dpo-robust"),
    ],
)
def test_losses_of_pairs(their_type: str, name: str) -> None:
    parameters = {"beta": BETA} | ({"epsilon": EPSILON} if name == "dpo-robust" else {})
    assert ours(LENGTHS, Term(name, 1.0, parameters)).mean().item() == pytest.approx(theirs(LENGTHS, [their_type]))


def test_ipo_differs_by_lengths() -> None:
    """Answers of n tokens: their beta is ours times n, and their loss ours over n squared."""
    n = 6
    found = ours([n] * 2 * PAIRS, Term("ipo", 1.0, {"beta": BETA})).mean().item()
    assert found / n**2 == pytest.approx(theirs([n] * 2 * PAIRS, ["ipo"], beta=BETA * n))


def test_supervised_tuning_differs_by_lengths() -> None:
    """TRL takes the mean over all tokens of the batch: ours weighted by the chosen answers' lengths."""
    weights = torch.tensor(LENGTHS[:PAIRS])
    found = (ours(LENGTHS, Term("sft")) * weights).sum() / weights.sum()
    assert found.item() == pytest.approx(theirs(LENGTHS, ["sft"]))
    same = [4] * 2 * PAIRS
    assert ours(same, Term("sft")).mean().item() == pytest.approx(theirs(same, ["sft"]))


def test_mpo_without_a_shift() -> None:
    same = [4] * 2 * PAIRS
    beta = {"beta": BETA}
    found = ours(same, Term("dpo", 0.8, beta), Term("bco-unshifted", 0.2, beta), Term("sft", 1.0)).mean().item()
    assert found == pytest.approx(theirs(same, ["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0]))


@pytest.mark.parametrize("lift", [2.0, -2.0])  # the policy likelier on mismatched answers, or cut at 0
def test_kto(lift: float) -> None:
    policy, reference = rows(0, LENGTHS), rows(1, LENGTHS)
    mismatched = rows(2, LENGTHS)
    instance = trainer(
        trl("KTOTrainer"),
        ScriptedModel(output(mismatched), output(policy)),
        precompute_ref_logps=True,
        calculate_KL=True,
        loss_type="kto",
        beta=BETA,
        desirable_weight=1.5,
        undesirable_weight=0.5,
    )
    shape, completion = (2 * PAIRS, WIDTH + 1), torch.cat([torch.zeros(2 * PAIRS, 1), masks(LENGTHS)], 1).long()
    ids = {name: torch.zeros(shape, dtype=torch.long) for name in ("input_ids", "KL_input_ids")}
    found = instance._compute_loss(
        instance.model,
        {
            **ids,
            "attention_mask": torch.ones(shape),
            "KL_attention_mask": torch.ones(shape),
            "completion_mask": completion,
            "KL_completion_mask": completion,
            "label": torch.tensor([True] * PAIRS + [False] * PAIRS),
            "ref_logps": reference.sum(1),
            "ref_KL_logps": mismatched.sum(1) - lift,
        },
        return_outputs=False,
    )
    sides = [pairs(logps, LENGTHS) for logps in (policy, reference)]
    strange = mismatched.sum(1)[:PAIRS]
    policy_pairs, reference_pairs = (
        PairLogps(side.chosen, side.rejected, mismatched=values)
        for side, values in zip(sides, (strange, strange - lift), strict=True)
    )
    parameters = {"beta": BETA, "chosen_weight": 1.5, "rejected_weight": 0.5}
    loss = make_objective([Term("kto", 1.0, parameters)])(policy_pairs, [reference_pairs]).loss
    assert loss.mean().item() == pytest.approx(found.item())


def test_simpo_and_smoothed_labels_through_cpo() -> None:
    """CPO's smoothed loss has no reference: the conservative one against a reference that finds all equally likely."""
    cpo = trl("CPOTrainer", "trl.experimental.cpo")
    policy = pairs(rows(0, LENGTHS), LENGTHS)
    simpo = trainer(cpo, ScriptedModel(), alpha=0.0, loss_type="simpo", beta=2.0, simpo_gamma=0.5, label_smoothing=0.0)
    found = make_objective([Term("simpo", 1.0, {"beta": 2.0, "gamma": 0.5})])(policy).loss
    assert torch.allclose(found, simpo.cpo_loss(*policy.means())[0])
    smoothed = trainer(cpo, ScriptedModel(), alpha=0.0, loss_type="sigmoid", beta=BETA, label_smoothing=EPSILON)
    nothing = PairLogps(torch.zeros_like(policy.chosen), torch.zeros_like(policy.rejected))
    conservative = make_objective([Term("dpo-conservative", 1.0, {"beta": BETA, "epsilon": EPSILON})])
    assert torch.allclose(conservative(policy, [nothing]).loss, smoothed.cpo_loss(policy.chosen, policy.rejected)[0])


def test_the_odds_of_orpo() -> None:
    """Theirs is the term to subtract from supervised tuning, which differs by lengths as above; float32 inside."""
    kind = trl("ORPOTrainer", "trl.experimental.orpo")
    policy = pairs(rows(0, LENGTHS), LENGTHS)
    odds = trainer(kind, ScriptedModel(), beta=0.2).odds_ratio_loss(*policy.means())[0]
    found = make_objective([Term("orpo", 1.0, {"odds_weight": 0.2})])(policy).loss
    tuning = make_objective([Term("sft")])(policy).loss
    assert torch.allclose(found - tuning, -odds.double(), atol=1e-6)


def test_reward_models() -> None:
    scores = column(1.5, -0.5, 2.0, 0.25)
    instance = trainer(
        trl("RewardTrainer"),
        ScriptedModel(SimpleNamespace(logits=scores[:, None])),
        args=SimpleNamespace(center_rewards_coefficient=None),
    )
    found = instance.compute_loss(instance.model, {"attention_mask": torch.ones(4, 3)})
    assert bradley_terry(PairLogps(scores[:2], scores[2:])).loss.mean().item() == pytest.approx(found.item())


def rollouts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """New, old and reference log-probs and advantages; ratios on both sides of the clipping."""
    new, old, reference = (rows(seed, LENGTHS) / 4 for seed in (0, 1, 2))
    return new, old, reference, column(1.0, -0.5, 2.0, -1.5, 0.3, -0.2, 0.8, -2.0, 0.1, 0.6)


def policy_inputs(old: dict[str, Tensor], reference: Tensor, advantages: Tensor) -> dict[str, Tensor]:
    ones = torch.ones(len(LENGTHS), 2, dtype=torch.long)
    ids = torch.zeros(len(LENGTHS), WIDTH, dtype=torch.long)
    masked = {"completion_mask": masks(LENGTHS).long(), "ref_per_token_logps": reference, "advantages": advantages}
    return {"prompt_ids": ones, "prompt_mask": ones, "completion_ids": ids, **masked, **old}


@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_grpo(beta: float) -> None:
    new, old, reference, advantages = rollouts()
    instance = trainer(
        trl("GRPOTrainer"),
        ScriptedModel(),
        _get_per_token_logps_and_entropies=lambda *_, **__: (new, torch.zeros_like(new), None),
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=beta,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        loss_type="grpo",
        epsilon_low=0.2,
        epsilon_high=0.3,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
    )
    wanted = instance._compute_loss(instance.model, policy_inputs({"old_per_token_logps": old}, reference, advantages))
    surrogate, stopped = clipped_surrogate(new, old, advantages[:, None].expand_as(new), low=0.2, high=0.3)
    found = row_means(surrogate + beta * k3(new, reference), masks(LENGTHS)).mean()
    assert found.item() == pytest.approx(wanted.item())
    share = instance._metrics["train"]["clip_ratio/region_mean"][0]
    inside = masks(LENGTHS)
    assert (stopped & inside).sum().item() / inside.sum().item() == pytest.approx(share) and 0 < share < 1


def test_rloo() -> None:
    """Their ratio is that of whole answers."""
    new, old, reference, advantages = rollouts()
    instance = trainer(
        trl("RLOOTrainer"),
        ScriptedModel(),
        _get_per_token_logps_and_entropies=lambda *_, **__: (new, torch.zeros_like(new), None),
        epsilon_low=0.2,
        epsilon_high=0.2,
    )
    wanted = instance._compute_loss(instance.model, policy_inputs({"old_logps": old.sum(1)}, reference, advantages))
    sums = row_sums(new, masks(LENGTHS)), row_sums(old, masks(LENGTHS))
    loss, stopped = clipped_surrogate(*sums, advantages, low=0.2, high=0.2)
    assert loss.mean().item() == pytest.approx(wanted.item()) and stopped.any()


def test_the_deviation_of_a_group() -> None:
    """TRL's own standard deviation, without unscored answers, replaces ours."""
    deviation = trl("nanstd", "trl.trainer.utils")
    rewards = torch.tensor([[1.0, 2.0, 6.0, 3.0], [0.5, float("nan"), 4.0, 1.0]])
    found = group_relative(rewards, ~rewards.isnan(), divide_by_deviation=True)
    wanted = (rewards - rewards.nanmean(1, keepdim=True)) / (deviation(rewards, dim=1)[:, None] + 1e-4)
    assert torch.allclose(found, wanted.nan_to_num(0.0))
