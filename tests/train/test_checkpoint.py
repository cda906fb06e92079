"""Checkpoints: resuming is bit for bit the uninterrupted run, and a kill while saving leaves a complete one."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sightline.errors import InputError
from sightline.losses.objective import Term, make_objective
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.train.checkpoint import load_checkpoint, save_checkpoint
from sightline.train.config import OptimizerConfig
from sightline.train.log import StepRecord
from sightline.train.loop import StepSettings, TrainState, fit
from sightline.train.optimizer import make_optimizer, make_schedule
from sightline.train.preference import PreferenceTask
from sightline.train.reference_cache import Reference
from sightline.train.sources import OfflineSource

Make = Callable[..., VLM]
OPTIMIZER = OptimizerConfig(lr=0.01, weight_decay=0.1)


def start(make_policy: Make, pairs: list[Pair], **lora: object) -> TrainState[Pair]:
    """A run at its start: three epochs of two steps, of 4 pairs and of the 2 left over, with dropout."""
    vlm = make_policy(**{"dropout": 0.2, **lora})
    objective = make_objective([Term("dpo", parameters={"beta": 0.3})])
    return TrainState(
        vlm=vlm,
        optimizer=make_optimizer(vlm.model.named_parameters(), OPTIMIZER),
        source=OfflineSource(pairs, pairs_per_step=4, seed=3, epochs=3),
        task=PreferenceTask(vlm, objective, Reference(vlm, autocast=False, keep=True), autocast=False),
    )


def go_on(state: TrainState[Pair], steps: int) -> list[StepRecord]:
    settings = StepSettings(2, make_schedule(OPTIMIZER, state.source.steps), clip_norm=1.0, seed=3)
    training = fit(state, settings)
    return [next(training) for _ in range(steps)]


def weights_of(state: TrainState[Pair]) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in state.trainable()}


@pytest.mark.parametrize("train_projector", [False, True])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    make_policy: Make, pairs: list[Pair], tmp_path: Path, *, train_projector: bool
) -> None:
    straight = start(make_policy, pairs, train_projector=train_projector)
    expected = [row.model_dump(exclude={"seconds"}) for row in go_on(straight, 6)]

    found: list[dict[str, object]] = []
    for stop in (3, 5, 6):
        state = start(make_policy, pairs, train_projector=train_projector)
        torch.manual_seed(stop)  # whatever the process has drawn before
        assert load_checkpoint(state, tmp_path) == bool(found)
        assert state.step == len(found)
        found += [row.model_dump(exclude={"seconds"}) for row in go_on(state, stop - len(found))]
        save_checkpoint(state, tmp_path)
    assert found == expected
    weights = weights_of(state)
    assert weights.keys() == weights_of(straight).keys()
    assert all(torch.equal(weights[name], weight) for name, weight in weights_of(straight).items())


def test_without_a_checkpoint_nothing_is_loaded(make_policy: Make, pairs: list[Pair], tmp_path: Path) -> None:
    assert not load_checkpoint(start(make_policy, pairs), tmp_path / "none")


def test_only_the_latest_is_kept(make_policy: Make, pairs: list[Pair], tmp_path: Path) -> None:
    state = start(make_policy, pairs)
    for _ in range(3):
        go_on(state, 1)
        save_checkpoint(state, tmp_path)
    save_checkpoint(state, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


class Killed(BaseException):
    """What a kill looks like from inside."""


def save_dying(state: TrainState[Pair], directory: Path, survived: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Save, but die at the system call after the first `survived` that make, sync, rename or remove; whether it did."""
    left = survived

    def call(real: Callable[..., object], *args: object, **options: object) -> object:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return real(*args, **options)

    with monkeypatch.context() as patch:
        for name in ("mkdir", "fsync", "rename", "replace", "rmdir", "unlink"):
            patch.setattr(os, name, partial(call, getattr(os, name)))
        try:
            save_checkpoint(state, directory)
        except Killed:
            return True
    return False


def test_dying_anywhere_in_a_save_leaves_the_old_or_the_new(
    make_policy: Make, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, resumed = start(make_policy, pairs), start(make_policy, pairs)
    go_on(state, 1)
    save_checkpoint(state, tmp_path / "before")
    weights = {1: weights_of(state)}
    go_on(state, 1)
    weights[2] = weights_of(state)
    found = []
    for survived in range(100):
        directory = tmp_path / str(survived)
        shutil.copytree(tmp_path / "before", directory)
        died = save_dying(state, directory, survived, monkeypatch)
        assert load_checkpoint(resumed, directory)
        expected = weights[resumed.step]
        assert all(torch.equal(weight, expected[name]) for name, weight in weights_of(resumed).items())
        save_checkpoint(state, directory)
        assert [path.name for path in directory.iterdir()] == ["step-00000002"]
        if not died:
            break
        found.append(resumed.step)
    assert found == sorted(found) and found.count(1) >= 5 and found.count(2) >= 3, "deaths before and after the rename"


def test_it_is_open_to_other_tools(make_policy: Make, pairs: list[Pair], tmp_path: Path) -> None:
    """Tensors without pickle, and JSON that says where the run stands."""
    state = start(make_policy, pairs)
    go_on(state, 2)
    folder = save_checkpoint(state, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["state.json", "tensors.safetensors"]
    position = json.loads((folder / "state.json").read_text())
    assert position["step"] == 2 and position["source"] == {"drawn": 2, "pairs": 6}


def test_a_checkpoint_of_other_weights_is_refused(make_policy: Make, pairs: list[Pair], tmp_path: Path) -> None:
    state = start(make_policy, pairs, targets=["q_proj"])
    go_on(state, 1)
    save_checkpoint(state, tmp_path)
    with pytest.raises(InputError, match="its weights are not those that this model trains"):
        load_checkpoint(start(make_policy, pairs, targets=["v_proj"]), tmp_path)
