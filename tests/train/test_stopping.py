"""Early ends of a run: by validation on held-out pairs, or by an exploding loss; and full fine-tuning."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sightline.errors import InputError
from sightline.losses.types import LossOut, PairLogps, Requirement
from sightline.models.loading import load_vlm
from sightline.records.manifest import read_manifest
from sightline.records.rows import Pair
from sightline.train.config.weights import GuardConfig, ValidationConfig
from sightline.train.data import hold_out
from sightline.train.log import read_log
from sightline.train.loop import fit
from sightline.train.run import train
from sightline.train.scoring import score_pairs
from sightline.train.task import Validation
from tests.train.test_loop import Make, dpo_objective, known, objective_of, settings, state_of, weights_of
from tests.train.test_run import assert_same_adapter, config_with, write_pairs


@pytest.fixture
def pairs_dir(pairs: list[Pair], tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs", pairs)


def test_pairs_about_one_picture_are_held_out_together(pairs: list[Pair]) -> None:
    for seed in range(5):
        rest, held = hold_out(pairs, 0.3, seed)
        assert len(rest) + len(held) == 6 and len(held) >= 2
        assert not {pair.images for pair in rest} & {pair.images for pair in held}
    assert hold_out(pairs, 0.3, 1) == hold_out(pairs, 0.3, 1)
    assert hold_out(pairs, 0.999, 0)[0], "something is left to train on"
    with pytest.raises(InputError, match="all pairs share one image"):
        hold_out(pairs[:1], 0.5, 0)


def test_patience_ends_the_run_and_the_best_weights_come_back(make_policy: Make, pairs: list[Pair]) -> None:
    """Held out are the training pairs the wrong way round, so that every look after the first is worse than it."""
    vlm = make_policy()
    state = state_of(vlm, pairs, max_steps=20)
    swapped = [p.model_copy(update={"id": f"{p.id}-", "chosen": p.rejected, "rejected": p.chosen}) for p in pairs]
    config = ValidationConfig(share=0.5, every=1, patience=3)
    state.validation = Validation(swapped, config, batch_size=4)
    records, after = [], []
    for record in fit(state, settings()):
        records.append(record)
        after.append(weights_of(vlm))
    losses = [record.numbers["validation_loss"] for record in records]
    assert len(records) == 4 and losses == sorted(losses), "the first look and three that were no better"
    assert records[-1].numbers["validation_accuracy"] < 0.5
    assert state.validation.best == losses[0] and state.validation.best_step == 1
    state.validation.restore_best(state.trainable())
    assert all(torch.equal(weight, after[0][name]) for name, weight in weights_of(vlm).items())
    assert not list(fit(state, settings())), "a run that was stopped stays so"


def test_a_run_saves_its_best_look_and_goes_on_after_a_kill_as_if_there_had_been_none(
    model_dir: Path, pairs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with("validation={share: 0.3, every: 1, measure: accuracy}", "epochs=4", "optim.lr=0.03")
    straight = train(model_dir, pairs_dir, tmp_path / "straight", config, 2)
    manifest = read_manifest(straight)
    assert manifest.counts["pairs_held_out"] >= 2
    rows = list(read_log(straight / "log.jsonl"))
    accuracies = [row.numbers["validation_accuracy"] for row in rows]
    assert manifest.numbers["best_validation_accuracy"] == max(accuracies)
    assert manifest.numbers["best_step"] == accuracies.index(max(accuracies)) + 1

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr("sightline.train.run._save_trained", killed)
        with pytest.raises(KeyboardInterrupt):
            train(model_dir, pairs_dir, stopped, config, 2)
    train(model_dir, pairs_dir, stopped, config, 2)
    assert_same_adapter(straight, stopped)


def test_an_exploding_loss_stops_the_run_before_its_update(make_policy: Make, pairs: list[Pair]) -> None:
    """log 2 for two steps, then a thousand times that: beyond 100 times the median, 69.3."""
    vlm = make_policy()
    factors = iter([1.0, 1.0, 1.0, 1000.0])

    def loss(policy: PairLogps, reference: PairLogps) -> LossOut:
        out = dpo_objective()(policy, [reference])
        return dataclasses.replace(out, loss=out.loss * next(factors))

    state = state_of(vlm, pairs, max_steps=9, objective=objective_of(loss, Requirement.REFERENCE))
    for group in state.optimizer.param_groups:
        group["initial_lr"] = 0.0
    guarded = dataclasses.replace(settings(), guard=GuardConfig(factor=100, window=3))
    steps = fit(state, guarded)
    for _ in range(3):
        next(steps)
    before = weights_of(vlm)
    with pytest.raises(InputError, match=r"step 3: the loss is 693\.1, more than 100 times the usual 0\.6931 .*pair-"):
        next(steps)
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(vlm).items())


def test_full_fine_tuning_trains_all_but_the_vision_tower_and_saves_a_model(
    model_dir: Path, pairs_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    """The reference is the model as it was: log 2 at first. A cosine at rate 1e-3 for 8 epochs learns the pairs."""
    config = config_with("lora=null", "epochs=8", "optim.lr=2e-3", "optim.projector_lr=1e-2")
    out = train(model_dir, pairs_dir, tmp_path / "out", config, 0)
    rows = list(read_log(out / "log.jsonl"))
    assert rows[0].loss == pytest.approx(0.69314718, abs=1e-6) and rows[-1].loss < 0.3
    assert sorted(path.name for path in out.iterdir()) == ["log.jsonl", "manifest.json", "model", "trained_on.npz"]
    before, after = (load_vlm(path).base.state_dict() for path in (model_dir, out / "model"))
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert moved and not any("vision" in name for name in moved)
    assert any("projector" in name for name in moved) and any("lm_head" in name for name in moved)
    with torch.no_grad():
        base, tuned = (score_pairs(load_vlm(path), pairs, autocast=False) for path in (model_dir, out / "model"))
    gains = (tuned.chosen - tuned.rejected) - (base.chosen - base.rejected)
    assert (gains > 0).all()
    assert known(rows[-1].margin) > 0.5


def test_a_projector_may_have_a_rate_of_its_own(model_dir: Path, pairs_dir: Path, tmp_path: Path) -> None:
    """At the rate 1e-30 it stays where it is, to the last bit, while LoRA moves."""
    given = ("lora.train_projector=true", "optim.projector_lr=1e-30", "max_steps=2", "epochs=null")
    out = train(model_dir, pairs_dir, tmp_path / "out", config_with(*given), 0)
    weights, base = load_file(out / "adapter" / "adapter_model.safetensors"), load_file(model_dir / "model.safetensors")
    names = [name for name in weights if "projector" in name]
    assert names
    for name in names:
        tail = name.rpartition("multi_modal_projector.")[2]
        original = next(weight for key, weight in base.items() if key.endswith(f"multi_modal_projector.{tail}"))
        torch.testing.assert_close(weights[name], original, rtol=0, atol=1e-25)
    assert any(weight.abs().max() > 1e-4 for name, weight in weights.items() if "lora_B" in name)
    with pytest.raises(InputError, match="no projector is trained"):
        config_with("optim.projector_lr=1e-4")
