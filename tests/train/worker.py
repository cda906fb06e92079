"""One of several processes of a test: trains the tiny model for some steps and writes what came of it.

Run as `python -m tests.train.worker FOLDER MODEL KIND...` with the environment of `torchrun`; the pairs are
`FOLDER/pairs.jsonl`. For each kind (`lora`, `full`, `sharded`, `sharded-lora`) it writes KIND.json and KIND/.
"""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import distribute_tensor

from sightline.losses.objective import Term, make_objective
from sightline.models.adapters import LoraSettings, add_lora, save_adapter
from sightline.models.loading import load_vlm
from sightline.models.processes import Processes, join_processes
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.records.store import read_rows
from sightline.train import sharding
from sightline.train.checkpoint import load_checkpoint, save_checkpoint
from sightline.train.config import OptimizerConfig
from sightline.train.loop import StepSettings, TrainState, fit, trainable_weights
from sightline.train.optimizer import make_optimizer
from sightline.train.preference import PreferenceTask
from sightline.train.processes import full_state
from sightline.train.reference_cache import Reference, UntrainedPolicy
from sightline.train.sharding import open_sharded, reshard, score_together
from sightline.train.sources import OfflineSource

STEPS, STOP = 4, 2  # a run of four steps, stopped after two and gone on from its checkpoint


def policy_of(model: Path, kind: str, weights: bool = True) -> VLM:
    vlm = load_vlm(model, weights=weights)
    if kind.endswith("lora"):
        return add_lora(vlm, LoraSettings(4, 8.0), seed=1)
    vlm.model.requires_grad_(True)
    return vlm


def live_bytes() -> int:
    """The bytes of all tensors of this process since `gc.freeze` that have memory, each storage once."""
    found: dict[int, int] = {}
    for each in gc.get_objects():
        if issubclass(type(each), torch.Tensor) and type(each).__name__ != "DTensor" and not each.is_meta:
            storage = each.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def measure_opening(folder: Path, model: Path) -> None:
    """Open a model to train in full, sharded; write the bytes of its parameters: whole, here, and at the peak."""
    with join_processes("cpu") as processes:
        gc.collect()
        gc.freeze()  # the modules' objects are many, and none is a weight
        peak = 0

        def measured(*arguments: Any) -> Any:
            nonlocal peak
            peak = max(peak, live_bytes())
            return distribute_tensor(*arguments)

        sharding.distribute_tensor = measured  # type: ignore[attr-defined, assignment]
        vlm, _ = open_sharded(lambda _, weights: policy_of(model, "sharded", weights), processes)
        weights = list(vlm.model.parameters())
        numbers = {
            "whole": sum(weight.numel() * weight.element_size() for weight in weights),
            "largest": max(weight.numel() * weight.element_size() for weight in weights),
            "here": sum(weight.to_local().numel() * weight.element_size() for weight in weights),
            "peak": peak,
            "end": live_bytes(),
        }
        (folder / f"memory-{processes.rank}.json").write_text(json.dumps(numbers), encoding="utf-8")


def state_of(model: Path, kind: str, pairs: list[Pair], processes: Processes) -> TrainState[Pair]:
    """A run before its first step. Without an adapter there is no reference, so the loss asks for none."""
    root = None
    if kind.startswith("sharded"):
        vlm, root = open_sharded(lambda _, weights: policy_of(model, kind, weights), processes)
    else:
        vlm = policy_of(model, kind)
    dpo = Term("dpo", parameters={"beta": 0.5})
    simpo = Term("simpo", parameters={"beta": 2.0, "gamma": 0.5})
    objective = make_objective([dpo if kind.endswith("lora") else simpo])
    reference = Reference(vlm, autocast=False, keep=True)
    task = PreferenceTask(vlm, objective, reference, autocast=False)
    source = OfflineSource(pairs, pairs_per_step=5, seed=0, max_steps=STEPS)
    if root is not None:  # also where the loss asks for no reference: a pass before the optimizer takes the weights
        policy = (
            reference
            if kind.endswith("lora")
            else Reference(vlm, autocast=False, keep=True, frozen=UntrainedPolicy(vlm))
        )
        score_together(policy, pairs, processes, root)
        reshard(root)
    elif kind.endswith("lora"):
        reference(pairs)
    optimizer = make_optimizer(trainable_weights(vlm, task), OptimizerConfig(lr=0.003, weight_decay=0.01))
    state = TrainState(vlm, optimizer, source, task, processes=processes)
    if root is not None:
        state.run_with_weights = root
    return state


def run(folder: Path, model: Path, kind: str, pairs: list[Pair], processes: Processes) -> None:
    settings = StepSettings(2, schedule=lambda _: 1.0, clip_norm=0.5, seed=0)
    first = state_of(model, kind, pairs, processes)
    steps = fit(first, settings)
    rows = [next(steps) for _ in range(STOP)]
    save_checkpoint(first, folder / f"{kind}-checkpoint")
    processes.on_first(lambda: None)
    state = state_of(model, kind, pairs, processes)
    assert load_checkpoint(state, folder / f"{kind}-checkpoint")
    rows += list(fit(state, settings))
    whole = full_state(state.vlm.model) if not kind.endswith("lora") else {}
    if processes.is_first:
        logged = [row.model_dump(exclude={"seconds"}) for row in rows]
        (folder / f"{kind}.json").write_text(json.dumps(logged), encoding="utf-8")
        if kind.endswith("lora"):
            if kind == "lora":
                save_adapter(state.vlm, folder / kind)
        else:
            state.vlm.model.save_pretrained(folder / kind, state_dict=whole)


def main() -> None:
    folder, model, kinds = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    if kinds == ["memory"]:
        measure_opening(folder, model)
        return
    pairs = list(read_rows(folder / "pairs.jsonl", Pair))
    with join_processes("cpu") as processes:
        for kind in kinds:
            run(folder, model, kind, pairs, processes)


if __name__ == "__main__":
    main()
