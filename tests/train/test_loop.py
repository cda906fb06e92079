"""The loop against gradients computed row by row, and invariants of any step."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sightline.errors import InputError
from sightline.losses.objective import BoundLoss, Objective, Term, make_objective
from sightline.losses.types import LossOut, PairLogps, Requirement
from sightline.models.adapters import reference_mode
from sightline.models.loading import load_vlm
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.train.config import OptimizerConfig
from sightline.train.log import StepRecord
from sightline.train.loop import StepSettings, TrainState, fit, seeded
from sightline.train.optimizer import make_optimizer
from sightline.train.preference import PreferenceTask
from sightline.train.reference_cache import Reference
from sightline.train.scoring import score_pairs
from sightline.train.sources import OfflineSource
from sightline.train.task import Losses
from tests.models import plain

BETA = 0.5
Make = Callable[..., VLM]


def dpo_objective() -> Objective:
    return make_objective([Term("dpo", parameters={"beta": BETA})])


def objective_of(function: Callable[..., LossOut], *needs: Requirement) -> Objective:
    return Objective((BoundLoss("made up", function, frozenset(needs)),))


State = TrainState[Pair]


def state_of(
    vlm: VLM,
    pairs: list[Pair],
    *,
    pairs_per_step: int = 6,
    max_steps: int = 1,
    keep: bool = False,
    objective: Objective | None = None,
) -> State:
    reference = Reference(vlm, autocast=False, keep=keep)
    return TrainState(
        vlm=vlm,
        optimizer=make_optimizer(vlm.model.named_parameters(), OptimizerConfig(lr=0.01)),
        source=OfflineSource(pairs, pairs_per_step=pairs_per_step, seed=0, max_steps=max_steps),
        task=PreferenceTask(vlm, objective or dpo_objective(), reference, autocast=False),
    )


def settings(batch_size: int = 6, share: float = 1.0, clip_norm: float = 1e9, seed: int = 0) -> StepSettings:
    return StepSettings(batch_size, schedule=lambda _: share, clip_norm=clip_norm, seed=seed)


def run(state: State, **options: float) -> list[StepRecord]:
    return list(fit(state, settings(**options)))  # type: ignore[arg-type]


def known(value: float | None) -> float:
    assert value is not None
    return value


def weights_of(vlm: VLM) -> dict[str, Tensor]:
    return {name: w.detach().clone() for name, w in vlm.model.named_parameters() if w.requires_grad}


def gradients_of(vlm: VLM) -> dict[str, Tensor]:
    return {name: w.grad.clone() for name, w in vlm.model.named_parameters() if w.grad is not None}


def stir(vlm: VLM) -> None:
    """Move the adapter off zero, so that policy and reference differ and all its weights have gradients."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in vlm.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)


def plain_logps(vlm: VLM, pair: Pair) -> tuple[Tensor, Tensor]:
    """Summed log-probs of both answers, each from a forward over its row alone."""
    images = [Path(image) for image in pair.images]
    chosen, rejected = (
        plain.token_logps(vlm.model, vlm.processor, images, pair.prompt, answer).sum()
        for answer in (pair.chosen, pair.rejected)
    )
    return chosen, rejected


def test_the_first_step_is_log_two_because_the_reference_is_the_policy(make_policy: Make, pairs: list[Pair]) -> None:
    (record,) = run(state_of(make_policy(), pairs))
    assert record.loss == pytest.approx(math.log(2), abs=1e-6)
    assert record.chosen_ref_logps == pytest.approx(record.chosen_logps, rel=1e-6)
    assert record.rejected_ref_logps == pytest.approx(record.rejected_logps, rel=1e-6)
    assert max(abs(known(value)) for value in (record.chosen_reward, record.rejected_reward, record.margin)) < 1e-5
    assert record.step == 0 and record.pairs == 6 and record.lr == 0.01 and record.seconds > 0


@pytest.mark.parametrize("train_projector", [False, True])
def test_a_step_equals_the_sum_worked_row_by_row(
    make_policy: Make, model_dir: Path, pairs: list[Pair], *, train_projector: bool
) -> None:
    """Loss, rewards and gradients from plain forwards and the printed equation; the reference is the base model."""
    vlm = make_policy(train_projector=train_projector)
    stir(vlm)
    base = load_vlm(model_dir)
    losses, chosen_rewards = [], []
    for pair in pairs:
        chosen, rejected = plain_logps(vlm, pair)
        with torch.no_grad():
            chosen_ref, rejected_ref = plain_logps(base, pair)
        losses.append(torch.log1p(torch.exp(-BETA * (chosen - rejected - chosen_ref + rejected_ref))))
        chosen_rewards.append(BETA * (chosen - chosen_ref).item())
    loss = torch.stack(losses).mean()
    loss.backward()
    expected = gradients_of(vlm)
    assert any("projector" in name for name in expected) == train_projector

    (record,) = run(state_of(vlm, pairs))
    assert record.loss == pytest.approx(loss.item(), rel=1e-5)
    assert record.chosen_reward == pytest.approx(sum(chosen_rewards) / 6, rel=1e-4)
    norm = math.sqrt(sum(gradient.double().square().sum().item() for gradient in expected.values()))
    assert record.grad_norm == pytest.approx(norm, rel=1e-4)
    found = gradients_of(vlm)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5 * norm)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_accumulation_is_exact(make_policy: Make, pairs: list[Pair], batch_size: int) -> None:
    """Batches of 1, of 2, and of 4 with a smaller last one give the loss and gradients of all 6 pairs at once."""
    whole, split = make_policy(), make_policy()
    stir(whole)
    stir(split)
    (expected,) = run(state_of(whole, pairs))
    (found,) = run(state_of(split, pairs), batch_size=batch_size)
    fields = set(StepRecord.model_fields) - {"seconds", "numbers", "streams"}
    assert found.model_dump(include=fields) == pytest.approx(expected.model_dump(include=fields), rel=1e-4)
    gradients = gradients_of(split)
    for name, gradient in gradients_of(whole).items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-5 * expected.grad_norm)


def test_training_prefers_the_chosen_and_leaves_the_reference_alone(
    make_policy: Make, model_dir: Path, pairs: list[Pair]
) -> None:
    vlm = make_policy(dropout=0.05)
    state = state_of(vlm, pairs, max_steps=15)
    before = Reference(vlm, autocast=False, keep=False)(pairs)
    frozen = {name: w.clone() for name, w in vlm.model.named_parameters() if not w.requires_grad}
    records = run(state)
    after = Reference(vlm, autocast=False, keep=False)(pairs)
    assert [record.step for record in records] == list(range(15)) and state.step == 15
    assert records[-1].loss < 0.2 < math.log(2) - 0.01 < records[0].loss
    assert records[-1].accuracy == 1.0 and known(records[-1].margin) > 1.0
    assert torch.equal(before.chosen, after.chosen) and torch.equal(before.rejected, after.rejected)
    assert all(torch.equal(w, frozen[name]) for name, w in vlm.model.named_parameters() if name in frozen)
    base = score_pairs(load_vlm(model_dir), pairs, autocast=False)
    torch.testing.assert_close(after.chosen, base.chosen.detach(), rtol=1e-5, atol=1e-5)
    policy = score_pairs(dataclasses.replace(vlm, model=vlm.model.eval()), pairs, autocast=False)
    margins = (policy.chosen - after.chosen) - (policy.rejected - after.rejected)
    assert (margins > 0).all(), "for every pair the chosen reward is the greater"


def test_kept_reference_numbers_are_those_computed_anew(make_policy: Make, pairs: list[Pair]) -> None:
    kept = run(state_of(make_policy(), pairs, max_steps=4, keep=True))
    anew = run(state_of(make_policy(), pairs, max_steps=4, keep=False))
    for a, b in zip(kept, anew, strict=True):
        assert a.chosen_ref_logps == pytest.approx(b.chosen_ref_logps, rel=1e-6)
        assert a.loss == pytest.approx(b.loss, rel=1e-4)


def test_kept_reference_numbers_are_computed_once(make_policy: Make, pairs: list[Pair]) -> None:
    vlm = make_policy()
    reference = Reference(vlm, autocast=False, keep=True)
    first = reference(pairs[:4])
    with torch.no_grad():
        next(w for name, w in vlm.model.named_parameters() if "base_layer" in name).mul_(2.0)  # another reference
    mixed = reference(pairs[2:])
    assert mixed.chosen[:2].tolist() == first.chosen[2:].tolist()
    fresh = Reference(vlm, autocast=False, keep=False)(pairs[2:])
    assert mixed.chosen[2:].tolist() == pytest.approx(fresh.chosen[2:].tolist(), rel=1e-5)
    assert mixed.chosen[0].item() != pytest.approx(fresh.chosen[0].item(), rel=1e-5)


def test_the_reference_has_no_dropout_and_leaves_mode_and_adapter_as_they_were(
    make_policy: Make, pairs: list[Pair]
) -> None:
    vlm = make_policy(dropout=0.5)
    stir(vlm)
    for module in vlm.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5  # of the base model's own, which training turns on
    vlm.model.eval()
    with reference_mode(vlm), torch.no_grad():
        expected = score_pairs(vlm, pairs[:2], autocast=False)
    adapted = score_pairs(vlm, pairs[:2], autocast=False)
    vlm.model.train()
    found = Reference(vlm, autocast=False, keep=False)(pairs[:2])
    torch.testing.assert_close(found.chosen, expected.chosen, rtol=1e-6, atol=0)
    assert vlm.model.training and not found.chosen.requires_grad
    vlm.model.eval()
    again = score_pairs(vlm, pairs[:2], autocast=False)
    assert torch.equal(again.chosen, adapted.chosen) and not torch.equal(again.chosen, found.chosen)


def test_clipping_bounds_the_update_and_the_record_tells_the_norm_before(make_policy: Make, pairs: list[Pair]) -> None:
    """Under plain SGD at a quarter of rate 2 and clip norm 0.01 the weights move by 0.5 * 0.01 in all."""
    vlm = make_policy()
    before = weights_of(vlm)
    state = state_of(vlm, pairs)
    state.optimizer = torch.optim.SGD([weight for _, weight in state.trainable()], lr=2.0)
    (record,) = run(state, share=0.25, clip_norm=0.01)
    moved = sum((after - before[name]).double().square().sum().item() for name, after in weights_of(vlm).items())
    assert record.grad_norm > 0.1
    assert math.sqrt(moved) == pytest.approx(0.005, rel=1e-3)


def test_the_rate_comes_from_the_schedule_at_each_step(make_policy: Make, pairs: list[Pair]) -> None:
    vlm = make_policy()
    before = weights_of(vlm)
    state = state_of(vlm, pairs, max_steps=3)
    step_settings = dataclasses.replace(settings(), schedule=lambda step: [0.0, 25.0, 12.5][step])
    steps = fit(state, step_settings)
    assert next(steps).lr == 0.0
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(vlm).items())
    assert [record.lr for record in steps] == [0.25, 0.125]
    assert not all(torch.equal(weight, before[name]) for name, weight in weights_of(vlm).items())


def test_dropout_is_a_function_of_seed_and_step_and_leaves_no_trace(make_policy: Make, pairs: list[Pair]) -> None:
    def losses(seed: int, noise: int) -> list[float]:
        vlm = make_policy(dropout=0.5)
        stir(vlm)
        vlm.model.eval()  # as a caller may hand it in; the loop trains it with dropout all the same
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        records = run(state_of(vlm, pairs, max_steps=2), share=0.0, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return [record.loss for record in records]

    first = losses(seed=0, noise=1)
    assert losses(seed=0, noise=2) == first
    assert losses(seed=7, noise=1) != first
    assert first[0] != pytest.approx(first[1], rel=1e-6), "at rate 0 only dropout can differ between the steps"


def test_seeds_and_steps_do_not_collide() -> None:
    def draw(seed: int, step: int) -> float:
        with seeded(seed, step):
            return torch.rand(()).item()

    assert len({draw(seed, step) for seed in range(5) for step in range(5)}) == 25
    assert draw(3, 4) == draw(3, 4)


def test_a_loss_that_is_not_finite_stops_the_run_by_name(make_policy: Make, pairs: list[Pair]) -> None:
    """The loss of one pair is NaN at the third step; the weights stay those of the second."""
    vlm = make_policy()

    def objective(policy: PairLogps, reference: PairLogps) -> LossOut:
        out = dpo_objective()(policy, [reference])
        poison = torch.zeros_like(out.loss)
        poison[4] = float("nan") if state.step == 2 else 0.0
        return dataclasses.replace(out, loss=out.loss + poison)

    poisoned = objective_of(objective, Requirement.REFERENCE)
    state = state_of(vlm, pairs, max_steps=5, pairs_per_step=6, objective=poisoned)
    steps = fit(state, settings())
    next(steps)
    next(steps)
    before = weights_of(vlm)
    order = OfflineSource(pairs, pairs_per_step=6, seed=0, max_steps=5)
    guilty = [list(step) for step in order][2][4].id
    with pytest.raises(InputError, match=rf"step 2: the loss is .*nan.* on {guilty};.*lower optim.lr"):
        next(steps)
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(vlm).items())


def test_a_gradient_that_is_not_finite_stops_the_run_by_name(make_policy: Make, pairs: list[Pair]) -> None:
    """The square root of a difference that is 0 has a loss of 0 and no finite gradient."""
    vlm = make_policy()
    before = weights_of(vlm)

    def root(policy: PairLogps, reference: PairLogps) -> LossOut:
        distance = (policy.chosen - reference.chosen).square().sqrt()
        return LossOut(distance, distance.detach(), distance.detach())

    with pytest.raises(InputError, match=r"step 0: the gradient's norm is nan on pair-\d"):
        run(state_of(vlm, pairs, objective=objective_of(root, Requirement.REFERENCE)))
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(vlm).items())


def test_a_loss_that_needs_no_reference_runs_none(make_policy: Make, pairs: list[Pair]) -> None:
    def refuse(_: object) -> PairLogps:
        raise AssertionError("the reference was asked")

    def difference(policy: PairLogps) -> LossOut:
        return LossOut(policy.rejected - policy.chosen, policy.chosen.detach(), policy.rejected.detach())

    vlm = make_policy()
    refusing = type("Refusing", (Reference,), {"__call__": lambda _, batch: refuse(batch)})
    objective = objective_of(difference)
    state = state_of(vlm, pairs)
    state.task = PreferenceTask(vlm, objective, refusing(vlm, autocast=False, keep=False), autocast=False)
    (record,) = run(state)
    assert record.chosen_ref_logps is None and record.rejected_ref_logps is None
    assert record.loss == pytest.approx(known(record.rejected_logps) - known(record.chosen_logps), rel=1e-6)
    assert record.margin == pytest.approx(-record.loss, rel=1e-6)


def test_lengths_are_tokens_with_the_end_of_turn(make_policy: Make, pairs: list[Pair]) -> None:
    vlm = make_policy()
    (record,) = run(state_of(vlm, pairs))

    def tokens(answers: list[str]) -> float:
        ids = [vlm.tokenizer(f" {answer}</s>", add_special_tokens=False)["input_ids"] for answer in answers]
        return sum(len(i) for i in ids) / len(ids)

    assert record.chosen_tokens == tokens([pair.chosen for pair in pairs])
    assert record.rejected_tokens == tokens([pair.rejected for pair in pairs])


def test_only_the_adapter_is_trained(make_policy: Make, pairs: list[Pair]) -> None:
    state = state_of(make_policy(), pairs)
    assert state.trainable() and all("lora_" in name for name, _ in state.trainable())
    assert all(isinstance(weight, nn.Parameter) for _, weight in state.trainable())


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_a_pass_that_does_not_fit_is_halved_with_the_same_step(
    make_policy: Make, pairs: list[Pair], place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected_vlm, vlm = make_policy(), make_policy()
    expected = list(fit(state_of(expected_vlm, pairs, max_steps=2), settings(2)))
    sizes: list[int] = []
    plain = PreferenceTask._losses

    def limited(self: PreferenceTask, pairs: list[Pair], **options: object) -> Losses:
        sizes.append(len(pairs))
        losses = plain(self, pairs, **options)  # type: ignore[arg-type]
        if len(pairs) > 2 and place == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if len(pairs) > 2:
            losses.loss.register_hook(_fail)
        return losses

    monkeypatch.setattr(PreferenceTask, "_losses", limited)
    state = state_of(vlm, pairs, max_steps=2)
    found = list(fit(state, settings(6)))
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert [record.message.partition(" of ")[0] for record in caplog.records] == ["out"] * 2
    assert state.fitting == 1
    for one, other in zip(found, expected, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-4)
    for (name, weight), other in zip(vlm.model.named_parameters(), expected_vlm.model.parameters(), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-4, atol=1e-5, msg=name)


def _fail(_: Tensor) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_one_pair_that_does_not_fit_is_an_error(
    make_policy: Make, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PreferenceTask, "_losses", lambda *_, **__: _fail(torch.zeros(1)))
    with pytest.raises(InputError, match=r"2\.00 GiB are missing.*activation_checkpointing=true"):
        next(fit(state_of(make_policy(), pairs), settings(4)))
