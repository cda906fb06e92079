"""One of several processes of a test: trains the tiny model for some steps and writes what came of it.

Run as `python -m tests.train.worker FOLDER MODEL KIND...` with the environment of `torchrun`; the pairs are
`FOLDER/pairs.jsonl`. For each kind (`lora`, `full`, `sharded`, `sharded-lora`) it writes KIND.json and KIND/.
"""

import json
import sys
from pathlib import Path

from sightline.losses.objective import Term, make_objective
from sightline.models.adapters import LoraSettings, add_lora, save_adapter
from sightline.models.loading import load_vlm
from sightline.models.processes import Processes, join_processes
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.records.store import read_rows
from sightline.train.checkpoint import load_checkpoint, save_checkpoint
from sightline.train.config import OptimizerConfig
from sightline.train.loop import StepSettings, TrainState, fit, trainable_weights
from sightline.train.optimizer import make_optimizer
from sightline.train.preference import PreferenceTask
from sightline.train.processes import full_state, shard
from sightline.train.reference_cache import Reference
from sightline.train.sources import OfflineSource

STEPS, STOP = 4, 2  # a run of four steps, stopped after two and gone on from its checkpoint


def policy_of(model: Path, kind: str) -> VLM:
    vlm = load_vlm(model)
    if kind.endswith("lora"):
        return add_lora(vlm, LoraSettings(4, 8.0), seed=1)
    vlm.model.requires_grad_(True)
    return vlm


def state_of(model: Path, kind: str, pairs: list[Pair], processes: Processes) -> TrainState[Pair]:
    """A run before its first step. Without an adapter there is no reference, so the loss asks for none."""
    vlm = policy_of(model, kind)
    dpo = Term("dpo", parameters={"beta": 0.5})
    simpo = Term("simpo", parameters={"beta": 2.0, "gamma": 0.5})
    objective = make_objective([dpo if kind.endswith("lora") else simpo])
    reference = Reference(vlm, autocast=False, keep=True)
    task = PreferenceTask(vlm, objective, reference, autocast=False)
    source = OfflineSource(pairs, pairs_per_step=5, seed=0, max_steps=STEPS)
    if kind.endswith("lora"):
        reference(pairs)
    run_with_weights = shard(vlm) if kind.startswith("sharded") else None
    optimizer = make_optimizer(trainable_weights(vlm, task), OptimizerConfig(lr=0.003, weight_decay=0.01))
    state = TrainState(vlm, optimizer, source, task, processes=processes)
    if run_with_weights is not None:
        state.run_with_weights = run_with_weights
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
    pairs = list(read_rows(folder / "pairs.jsonl", Pair))
    with join_processes("cpu") as processes:
        for kind in kinds:
            run(folder, model, kind, pairs, processes)


if __name__ == "__main__":
    main()
