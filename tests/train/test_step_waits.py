"""The host waits for the device once in a training step (`tests/models/test_waits.py` explains how that is seen)."""

from collections.abc import Callable

import pytest

from sightline.losses.objective import Term, make_objective
from sightline.models.compat import set_activation_checkpointing
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.train import loop
from sightline.train.config import OptimizerConfig
from sightline.train.loop import StepSettings, TrainState, fit
from sightline.train.optimizer import make_optimizer
from sightline.train.preference import PreferenceTask
from sightline.train.reference_cache import Reference
from sightline.train.sources import OfflineSource
from tests.models.test_waits import on_meta, reader


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_step_waits_once(
    make_policy: Callable[..., VLM],
    pairs: list[Pair],
    checkpointing: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vlm = make_policy()
    pairs = pairs[:4]
    known = Reference(vlm, autocast=False, keep=True)
    known(pairs)
    if checkpointing:
        set_activation_checkpointing(vlm.base, enabled=True)
    meta = on_meta(vlm)
    reference = Reference(meta, autocast=False, keep=True)
    reference._kept = known._kept  # what earlier epochs computed
    counts: list[tuple[int, ...]] = []
    monkeypatch.setattr(loop, "read_values", reader(counts))
    state = TrainState(
        vlm=meta,
        optimizer=make_optimizer(meta.model.named_parameters(), OptimizerConfig(lr=0.01)),
        source=OfflineSource(pairs, pairs_per_step=4, seed=0, max_steps=2),
        task=PreferenceTask(meta, make_objective([Term("dpo", parameters={"beta": 0.1})]), reference, autocast=False),
    )
    records = list(fit(state, StepSettings(2, schedule=lambda _: 1.0, clip_norm=1.0, seed=0)))
    assert [record.loss for record in records] == [7.0, 7.0]
    assert len(counts) == 2
