"""Rollouts: sampling, filtering, distribution over steps, and exact resumption of a killed run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sightline.errors import InputError
from sightline.judges.judge import Verdict
from sightline.models.requests import GenerateRequest, JudgeInput, Prefix, Sampling
from sightline.models.sampler import generate
from sightline.models.vlm import VLM
from sightline.records.rows import Sample
from sightline.train.checkpoint import load_checkpoint, save_checkpoint
from sightline.train.loop import TrainState, fit
from sightline.train.rl.rollouts import RewardScale, Rollout
from tests.train.rl.rolling import GRPO, PPO, RLOO, Counts, settings_of, state_of

Make = Callable[..., VLM]


def drawn(state: TrainState[Rollout]) -> list[list[Rollout]]:
    return [list(items) for items in state.source]


def weights(state: TrainState[Rollout]) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in state.trainable()}


def ids_of(items: Sequence[Rollout]) -> list[tuple[int, ...]]:
    return [answer.ids for item in items for answer in item.answers]


def test_what_is_learned_from_is_what_was_sampled(make_policy: Make, pictures: list[Path]) -> None:
    """Tokens, scores of their text, log-probs of both models: a fresh adapter is the reference."""
    vlm = make_policy()
    (items,) = drawn(state_of(vlm, pictures, RLOO | {"unfinished_penalty": 0.5}, Counts("e")))
    assert sorted(item.sample_id for item in items) == [f"sample-{n}" for n in range(4)]
    for item in items:
        assert len({answer.ids for answer in item.answers}) == 4
        for answer in item.answers:
            text = vlm.tokenizer.decode(answer.ids, skip_special_tokens=True)
            assert answer.score == text.count("e")
            assert answer.finished == (answer.ids[-1] in vlm.end_ids)
            assert answer.reward == answer.score - (0.0 if answer.finished else 0.5)
            assert answer.logps == pytest.approx(answer.ref_logps, abs=1e-5)
            assert len(answer.logps) == len(answer.advantages) == len(answer.ids)
        assert sum(answer.advantages[0] for answer in item.answers) == pytest.approx(0, abs=1e-5)


def test_samples_depend_on_seed_draw_and_sample_alone(make_policy: Make, pictures: list[Path]) -> None:
    """Of two draws the tokens differ; the first is the same whatever shares it; a request alone gives them too."""
    vlm = make_policy()
    first, second = drawn(state_of(vlm, pictures, RLOO, Counts("e"), max_steps=2))
    assert set(ids_of(first)).isdisjoint(ids_of(second))
    alone = drawn(state_of(vlm, pictures, RLOO, Counts("e"), prompts=1))[0][0]
    (same,) = [item for item in first if item.sample_id == alone.sample_id]
    assert ids_of([alone]) == ids_of([same])
    assert all(a.logps == pytest.approx(b.logps, abs=1e-4) for a, b in zip(alone.answers, same.answers, strict=True))


def test_unscored_answers_are_left_out_and_counted(make_policy: Make, pictures: list[Path]) -> None:
    vlm = make_policy()
    everything = drawn(state_of(vlm, pictures, RLOO, Counts("e")))[0]
    texts = {
        answer.ids: vlm.tokenizer.decode(answer.ids, skip_special_tokens=True)
        for item in everything
        for answer in item.answers
    }
    state = state_of(vlm, pictures, RLOO, Counts("e", silent_on="a"))
    (items,) = drawn(state)
    spoken = {
        item.sample_id: [answer.ids for answer in item.answers if "a" not in texts[answer.ids]] for item in everything
    }
    kept = {sample: ids for sample, ids in spoken.items() if len(ids) > 1}
    assert {item.sample_id: ids_of([item]) for item in items} == kept
    numbers = state.source.numbers()
    assert numbers["unscored"] == sum("a" in text for text in texts.values()) > 0
    assert numbers["answers"] == sum(map(len, kept.values())) and numbers["prompts_left_out"] == 4 - len(kept)
    scores = [answer.score for item in items for answer in item.answers]
    assert numbers["reward"] == pytest.approx(sum(scores) / len(scores))


def test_a_judge_that_is_silent_ends_the_run_in_one_sentence(make_policy: Make, pictures: list[Path]) -> None:
    with pytest.raises(InputError, match=r"the judge left 16 of 16 answers unscored \(silence\).*check the judge"):
        drawn(state_of(make_policy(), pictures, RLOO, Counts("e", silent_on="")))


def test_a_rollout_is_dealt_out_once_an_epoch(make_policy: Make, pictures: list[Path]) -> None:
    """Two minibatches of two prompts, twice over, in an order of its own; the numbers come with the first alone."""
    state = state_of(make_policy(), pictures, PPO, Counts("e"), prompts=2, max_steps=8)
    assert state.source.steps == 8
    steps, has_reward = [], []
    for items in state.source:
        steps.append([item.sample_id for item in items])
        has_reward.append("reward" in state.source.numbers())
    assert [len(step) for step in steps] == [2] * 8 and has_reward == [True, False, False, False] * 2
    for start in range(0, 8, 2):
        assert sorted(steps[start] + steps[start + 1]) == [f"sample-{n}" for n in range(4)]
    assert len({tuple(steps[start]) for start in range(0, 8, 2)}) > 1


def test_where_few_are_left_minibatches_come_again(make_policy: Make, pictures: list[Path]) -> None:
    state = state_of(make_policy(), pictures[:1], PPO, Counts("e"), prompts=1, max_steps=4)
    assert [[item.sample_id for item in items] for items in state.source] == [["sample-0"]] * 4


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_a_resumed_run_equals_the_uninterrupted_one(
    make_policy: Make, pictures: list[Path], tmp_path: Path, stop: int
) -> None:
    """Bit for bit, whether it was killed between rollouts or inside one, whose policy is gone by then."""
    kept = PPO | {"scale": {"by": "policy"}}
    scale = RewardScale(mean=0.7, std=1.3)

    def fresh_state(scale: RewardScale | None) -> TrainState[Rollout]:
        return state_of(make_policy(0.1), pictures, kept, Counts("e"), prompts=2, max_steps=7, scale=scale)

    whole = fresh_state(scale)
    expected = [record.model_dump(exclude={"seconds"}) for record in fit(whole, settings_of())]
    killed = fresh_state(scale)
    for _, _record in zip(range(stop), fit(killed, settings_of()), strict=False):
        pass
    save_checkpoint(killed, tmp_path)
    again = fresh_state(None)  # the scale is in the checkpoint: it is not measured by the trained policy
    assert load_checkpoint(again, tmp_path)
    found = [record.model_dump(exclude={"seconds"}) for record in fit(again, settings_of())]
    assert found == expected[stop:]
    for name, weight in weights(whole).items():
        assert torch.equal(weights(again)[name], weight), name


def mean_score(vlm: VLM, pictures: list[Path], text: str) -> float:
    requests = [
        GenerateRequest(Prefix((picture,), "Describe the picture."), seed=n) for picture in pictures for n in range(24)
    ]
    generations = generate(vlm, requests, Sampling(6, 1.0), batch_size=96)
    return sum(answer.text.count(text) for answer in generations) / len(generations)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(RLOO, id="rloo"),
        pytest.param(GRPO, id="grpo", marks=pytest.mark.slow),
        pytest.param(PPO, id="ppo", marks=pytest.mark.slow),
    ],
)
def test_a_judge_that_counts_a_letter_gets_more_of_it(
    make_policy: Make, pictures: list[Path], settings: dict[str, Any]
) -> None:
    vlm = make_policy()
    before = mean_score(vlm, pictures, "e")
    rolls = 12
    updates = settings.get("inner_epochs", 1) * settings.get("minibatches", 1)
    many = settings | {"answers": 24, "max_new_tokens": 6}
    state = state_of(vlm, pictures, many, Counts("e"), prompts=2, max_steps=rolls * updates, lr=0.03)
    records = list(fit(state, settings_of(clip_norm=1.0)))
    assert len(records) == rolls * updates
    assert mean_score(vlm, pictures, "e") > before + 0.3
    assert all(record.margin is None and record.pairs > 0 for record in records)
    if settings is PPO:
        assert any(record.numbers["clip_share"] > 0 for record in records)
        assert records[updates].numbers["explained_variance"] != 0


class Shown:
    """Remembers what it was shown."""

    identity = "shown"

    def __init__(self) -> None:
        self.inputs: list[JudgeInput] = []

    def score(self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
        self.inputs += inputs
        return [Verdict(1.0)] * len(inputs)


def test_a_judge_sees_picture_prompt_and_reference(make_policy: Make, pictures: list[Path]) -> None:
    judge = Shown()
    drawn(state_of(make_policy(), pictures, RLOO, judge))
    assert len(judge.inputs) == 16
    assert {one.prefix.images[0] for one in judge.inputs} == set(pictures)
    assert all(one.reference == "A red cup." for one in judge.inputs)
    assert Sample(id="a", prompt="b").truth == judge.inputs[0].truth == {}
