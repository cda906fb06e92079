"""Checkpoints from which a killed run resumes, bit for bit on the same machine.

There is one directory `checkpoint/step-N` at a time, complete from the moment it has that name: a kill at any instant
leaves either the previous checkpoint or the new one. `run` writes the adapter of a finished run.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from sightline.errors import InputError
from sightline.records.store import read_json, write_json
from sightline.train.loop import TrainState
from sightline.train.processes import shard_like, unsharded

_TENSORS, _STATE, _UNFINISHED, _BEST = "tensors.safetensors", "state.json", "unfinished", "best/"


def save_checkpoint(state: TrainState[Any], directory: Path) -> Path:
    """Write `state` to `directory/step-N` and remove earlier checkpoints.

    Every process calls this, because sharded tensors are gathered; only the first one writes. The saved tensors are
    unsharded, so a run may resume with another number of processes. Weights and optimizer moments are tensors by name;
    the step and the states of source and task are JSON. Random states are not saved: each step seeds its own
    (`loop.seeded`), and so does the source. The learning rate is a function of the step, and reference log-probs are a
    function of the pair, so neither is saved.
    """
    final = directory / f"step-{state.step:08d}"
    tensors = _tensors(state)
    if not state.processes.is_first:
        return final
    unfinished = directory / _UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_file(tensors, unfinished / _TENSORS)
    position = {
        "step": state.step,
        "source": state.source.state(),
        "task": state.task.state(),
        "recent": state.recent,
        "validation": None if state.validation is None else state.validation.state(),
    }
    write_json(unfinished / _STATE, position)
    _sync(unfinished / _TENSORS)
    _sync(unfinished)
    if final.exists():  # the state of a step is always the same, so keep it
        shutil.rmtree(unfinished)
    else:
        unfinished.rename(final)
    _sync(directory)
    for old in _complete(directory):
        if old != final:
            shutil.rmtree(old)
    return final


def load_checkpoint(state: TrainState[Any], directory: Path) -> bool:
    """Restore `state`, built as at the start of the run, from the latest checkpoint; False if there is none.

    Raises:
        InputError: the checkpoint's weights are not those that the model trains.
    """
    complete = _complete(directory)
    if not complete:
        return False
    folder = complete[-1]
    tensors = load_file(folder / _TENSORS, device=str(state.vlm.device))
    weights = dict(state.trainable())
    if {f"weight/{name}" for name in weights} != {key for key in tensors if key.startswith("weight/")}:
        raise InputError(
            f"{folder}: its weights are not those that this model trains; delete the directory to start over."
        )
    for name, weight in weights.items():
        weight.data.copy_(shard_like(tensors[f"weight/{name}"], weight.data))
    _restore_optimizer(state, tensors)
    position = read_json(folder / _STATE)
    state.step = position["step"]
    state.source.restore(position["source"])
    state.task.restore(position["task"])
    state.recent = position["recent"]
    if state.validation is not None:
        best = {key.removeprefix(_BEST): value.cpu() for key, value in tensors.items() if key.startswith(_BEST)}
        state.validation.restore(position["validation"], best)
    return True


def _tensors(state: TrainState[Any]) -> dict[str, Tensor]:
    tensors = {f"weight/{name}": unsharded(weight.detach()).contiguous() for name, weight in state.trainable()}
    if state.validation is not None:
        tensors |= {_BEST + name: weight.contiguous() for name, weight in state.validation.weights.items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": unsharded(value).contiguous() for key, value in values.items()}
    return tensors


def _restore_optimizer(state: TrainState[Any], tensors: dict[str, Tensor]) -> None:
    weights = [weight for group in state.optimizer.param_groups for weight in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            weight = weights[int(index)].data
            moments.setdefault(int(index), {})[name] = shard_like(tensor, weight) if tensor.ndim else tensor
    state.optimizer.load_state_dict({"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]})


def _complete(directory: Path) -> list[Path]:
    """The finished checkpoints, oldest first."""
    return sorted(directory.glob("step-*")) if directory.is_dir() else []


def _sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
