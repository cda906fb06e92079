"""Steps by rewards against gradients computed answer by answer with Transformers' own forward pass."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sightline.models.encoding import encode_prefix
from sightline.models.loading import load_vlm
from sightline.models.packing import PackRow
from sightline.models.unbatched import unbatched_logps, unbatched_states
from sightline.models.vlm import VLM
from sightline.train.loop import TrainState, fit
from sightline.train.rl.rollouts import Rollout, SampledAnswer
from tests.train.rl.rolling import GRPO, PPO, RLOO, Counts, settings_of, state_of

Make = Callable[..., VLM]
BETA = 0.3


def stirred(make_policy: Make) -> VLM:
    """An adapter off zero, so that policy and reference differ."""
    vlm = make_policy()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in vlm.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
    return vlm


def stepped(state: TrainState[Rollout], batch_size: int = 4) -> list[Rollout]:
    """The rollouts of the first step, after it."""
    drawn: list[list[Rollout]] = []
    begin = state.task.begin

    def watched(items: list[Rollout]) -> object:
        drawn.append(list(items))
        return begin(items)

    state.task.begin = watched  # type: ignore[method-assign,assignment]
    next(iter(fit(state, settings_of(batch_size))))
    return drawn[0]


def gradients(vlm: VLM) -> dict[str, Tensor]:
    return {name: w.grad.clone() for name, w in vlm.model.named_parameters() if w.grad is not None}


def row(vlm: VLM, item: Rollout, answer: SampledAnswer) -> PackRow:
    return PackRow(encode_prefix(vlm, item.prefix), (answer.ids,))


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    norm = math.sqrt(sum(g.double().square().sum().item() for g in expected.values()))
    assert norm > 1e-3 and found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * norm)


def test_rloo_is_reinforce_with_the_others_as_baseline(
    make_policy: Make, model_dir: Path, pictures: list[Path]
) -> None:
    """-1/n sum of (R_i - mean of the other three) * log pi(y_i|x), R = score - beta * log(pi/ref), row by row."""
    vlm, base = stirred(make_policy), load_vlm(model_dir)
    settings = RLOO | {"kl": {"weight": BETA, "place": "reward"}}
    state = state_of(vlm, pictures, settings, Counts("e"), lr=1e-12)
    items = stepped(state)
    found = gradients(vlm)
    vlm.model.zero_grad(set_to_none=True)
    assert len(items) == 4 and all(len(item.answers) == 4 for item in items)
    assert len({answer.score for item in items for answer in item.answers}) > 2
    loss = torch.zeros(())
    for item in items:
        logps = [unbatched_logps(vlm, [row(vlm, item, answer)]).sum() for answer in item.answers]
        with torch.no_grad():
            reference = [unbatched_logps(base, [row(base, item, answer)]).sum() for answer in item.answers]
        rewards = [
            answer.score - BETA * float(one.detach() - other)
            for answer, one, other in zip(item.answers, logps, reference, strict=True)
        ]
        for number, logp in enumerate(logps):
            others = [reward for place, reward in enumerate(rewards) if place != number]
            loss = loss - (rewards[number] - sum(others) / 3) * logp / 16
    loss.backward()
    assert_same_gradients(found, gradients(vlm))


def test_grpo_is_its_printed_equation(make_policy: Make, model_dir: Path, pictures: list[Path]) -> None:
    """Mean over answers of the mean over tokens of -A + beta k3, the advantage over the group's deviation."""
    vlm, base = stirred(make_policy), load_vlm(model_dir)
    state = state_of(vlm, pictures, GRPO | {"kl": {"weight": BETA, "place": "loss"}}, Counts("e"), lr=1e-12)
    items = stepped(state)
    found = gradients(vlm)
    vlm.model.zero_grad(set_to_none=True)
    loss = torch.zeros(())
    for item in items:
        scores = torch.tensor([answer.score for answer in item.answers])
        for answer in item.answers:
            logps = unbatched_logps(vlm, [row(vlm, item, answer)])
            with torch.no_grad():
                reference = unbatched_logps(base, [row(base, item, answer)])
            advantage = float((answer.score - scores.mean()) / (scores.std() + 1e-4))
            penalty = torch.exp(reference - logps) - 1 - (reference - logps)
            loss = loss + (-advantage * torch.exp(logps - logps.detach()) + BETA * penalty).mean() / 16
    loss.backward()
    assert_same_gradients(found, gradients(vlm))


def test_ppo_at_ratio_one_is_the_policy_gradient_of_rewards_to_come(
    make_policy: Make, model_dir: Path, pictures: list[Path]
) -> None:
    """With gamma = lambda = 1 and a value of 0 a token's advantage is what is still to come: score less the KL.

    The value head, at zero, learns -weight * return * state a token, and leaves the policy's gradient alone.
    """
    vlm, base = stirred(make_policy), load_vlm(model_dir)
    gae = {"name": "gae", "discount": 1.0, "trace": 1.0, "value_weight": 0.5, "whiten": False}
    settings = PPO | {"advantage": gae, "kl": {"weight": BETA, "place": "reward"}, "minibatches": 1}
    state = state_of(vlm, pictures, settings, Counts("e"), lr=1e-12)
    items = stepped(state)
    found, (head,) = gradients(vlm), [part.module for part in state.task.parts.values()]
    found_head = head.weight.grad.clone()  # type: ignore[union-attr,operator]
    vlm.model.zero_grad(set_to_none=True)
    tokens = sum(item.tokens for item in items)
    loss, slope = torch.zeros(()), torch.zeros(32)
    for item in items:
        for answer in item.answers:
            before, _, logps = unbatched_states(vlm, [row(vlm, item, answer)])
            with torch.no_grad():
                reference = unbatched_logps(base, [row(base, item, answer)])
            rewards = -BETA * (logps.detach() - reference)
            rewards[-1] += answer.score
            to_come = rewards.flip(0).cumsum(0).flip(0)
            assert answer.returns == pytest.approx(to_come.tolist(), abs=1e-4)
            loss = loss - (to_come * logps).sum() / tokens
            slope = slope - 0.5 * (to_come[:, None] * before.detach()).sum(0) / tokens
    loss.backward()
    assert_same_gradients(found, gradients(vlm))
    torch.testing.assert_close(found_head, slope, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", [RLOO, GRPO | {"clip": None}, PPO], ids=["rloo", "grpo", "ppo"])
def test_smaller_passes_change_nothing(make_policy: Make, pictures: list[Path], settings: dict[str, object]) -> None:
    results = []
    for batch_size in (4, 1, 3):
        vlm = stirred(make_policy)
        stepped(state_of(vlm, pictures, settings, Counts("e", silent_on="x"), lr=1e-12), batch_size)
        results.append(gradients(vlm))
    for other in results[1:]:
        assert_same_gradients(other, results[0])


def test_what_is_clipped_has_no_gradient(make_policy: Make, pictures: list[Path]) -> None:
    """Old log-probs moved by a nat: where the ratio has left [0.8, 1.2] the way that the advantage points, none."""
    vlm = stirred(make_policy)
    state = state_of(vlm, pictures, PPO | {"minibatches": 1}, Counts("e"))
    items = next(state.source)
    for moved, left in ((-1.0, "up"), (1.0, "down")):
        shifted = [
            item.model_copy(
                update={
                    "answers": tuple(
                        a.model_copy(
                            update={
                                "logps": tuple(logp + moved for logp in a.logps),
                                "advantages": tuple(1.0 if left == "up" else -1.0 for _ in a.ids),
                                "values": tuple(0.0 for _ in a.ids),
                                "returns": tuple(0.0 for _ in a.ids),
                            }
                        )
                        for a in item.answers
                    )
                }
            )
            for item in items
        ]
        vlm.model.zero_grad(set_to_none=True)
        losses = state.task.begin(shifted)(shifted)
        losses.loss.mean().backward()
        assert losses.columns["clip_share"].tolist() == [1.0] * len(items)
        assert all(gradient.abs().max() == 0 for gradient in gradients(vlm).values())
