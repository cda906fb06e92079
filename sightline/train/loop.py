"""The training loop: a generator of step records, the only one for every task and every source.

It writes no file and draws no progress bar; between two steps the caller may save `TrainState` or stop. A `task`
computes losses, a source (`sources`) supplies items; files and progress bars are in `run`, saving is `checkpoint`.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Generic

import numpy as np
import torch
from torch import Tensor, nn

from sightline.errors import InputError
from sightline.models.processes import Processes
from sightline.models.vlm import VLM
from sightline.train.config.weights import GuardConfig
from sightline.train.log import StepRecord, StepTally, merge_tallies
from sightline.train.processes import RunWithWeights, is_sharded, run_directly, sum_gradients, unsharded
from sightline.train.sources import Source
from sightline.train.task import Item, Losses, Task, Validation

UNGUARDED = GuardConfig(factor=None)
MIN_MEDIAN = 0.1  # lower bound for the median of recent losses


@dataclass
class TrainState(Generic[Item]):
    """Everything a step changes: the trainable weights, the optimizer, the source, the task, the step.

    `processes` share the work of each step; `run_with_weights` runs a computation with sharded weights gathered.
    `validation` measures held-out items if there are any; `recent` holds the losses of the last steps.
    """

    vlm: VLM
    optimizer: torch.optim.Optimizer
    source: Source[Item]
    task: Task[Item]
    step: int = 0
    processes: Processes = field(default_factory=Processes)
    run_with_weights: RunWithWeights = run_directly
    validation: Validation[Item] | None = None
    recent: list[float] = field(default_factory=list)

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The trainable weights by name: the model's, then those of the task's parts."""
        return trainable_weights(self.vlm, self.task)


def trainable_weights(vlm: VLM, task: Task[Item]) -> list[tuple[str, nn.Parameter]]:
    """The same as `TrainState.trainable`, before there is an optimizer."""
    own = [(name, weight) for name, weight in vlm.model.named_parameters() if weight.requires_grad]
    beside = [
        (f"{name}.{inner}", weight)
        for name, part in task.parts.items()
        for inner, weight in part.module.named_parameters()
        if weight.requires_grad
    ]
    return own + beside


@dataclass(frozen=True)
class StepSettings:
    """Settings of a step: `batch_size` items per pass, gradients clipped at `clip_norm`.

    `schedule` gives the step's share of every parameter group's peak rate. `seed` and the step's number determine all
    dropout of the step, independent of earlier steps.
    """

    batch_size: int
    schedule: Callable[[int], float]
    clip_norm: float
    seed: int
    guard: GuardConfig = UNGUARDED


def fit(state: TrainState[Item], settings: StepSettings) -> Iterator[StepRecord]:
    """Train from `state.step` on until the source is empty or validation stops the run; yields one record per step.

    The loss of a step is the mean over all its items, so splitting them into smaller batches, or sharing them among
    processes, changes nothing; every process holds all items. When a record is yielded, `state` is that of a run that
    ended there.

    Raises:
        InputError: a loss or a gradient is not finite, or the loss explodes; `state` is then as before the step, except
            for the source.
    """
    if state.validation is not None and state.validation.is_finished:
        return  # a resumed run that validation had stopped
    for items in state.source:
        started = time.perf_counter()
        state.optimizer.zero_grad(set_to_none=True)
        tally = StepTally()
        state.vlm.model.train()
        with seeded(settings.seed, state.step, state.processes.rank):
            state.processes.on_all(lambda: _gradients(state, settings, items, tally))  # noqa: B023 - run at once
        tally = merge_tallies(state.processes.gather(tally))
        _check_loss(state, settings.guard, tally, items)
        norm = _update(state, settings, items)
        record = tally.record(
            step=state.step,
            grad_norm=norm,
            lr=state.optimizer.param_groups[0]["lr"],
            seconds=time.perf_counter() - started,
            numbers=state.source.numbers(),
        )
        state.task.end(record)
        state.step += 1
        state.recent = [*state.recent, record.loss][-settings.guard.window :]
        yield _validate(state, record)
        if state.validation is not None and state.validation.is_finished:
            return


@contextmanager
def seeded(seed: int, step: int, rank: int = 0) -> Iterator[None]:
    """Inside, torch's random numbers depend on the arguments alone; outside, the global stream is unchanged.

    Dropout draws from torch's global stream. Seeding it for each step, instead of saving its state, makes a resumed
    step equal to the uninterrupted one by construction.
    """
    with torch.random.fork_rng():
        entropy = [seed, step, rank] if rank else [seed, step]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
        yield


def _gradients(state: TrainState[Item], settings: StepSettings, items: Sequence[Item], tally: StepTally) -> None:
    """Compute the gradient of the step's loss, summed over all processes, from this process's share of the items."""
    found: list[Callable[[Sequence[Item]], Losses]] = []
    state.run_with_weights(lambda: found.append(state.task.begin(items)))
    share = state.processes.share(items)
    # If weights are gathered for each pass, all processes must run the same number of passes.
    most = -(-len(items) // state.processes.count)
    faults: list[InputError] = []
    for start in range(0, most, settings.batch_size):
        batch = share[start : start + settings.batch_size]
        if batch or state.run_with_weights is not run_directly:
            faults += _accumulate(state, found[0], batch or items[:1], len(items) if batch else 0, tally)
    if faults:
        raise faults[0]


def _accumulate(
    state: TrainState[Item],
    losses: Callable[[Sequence[Item]], Losses],
    batch: Sequence[Item],
    step_items: int,
    tally: StepTally,
) -> list[InputError]:
    """Add the gradients of one batch, scaled for a mean over the step's `step_items` items (0: do not count it).

    Returns the errors, for the caller to raise when no other process is waiting.
    """
    found: list[Losses] = []

    def mean() -> Tensor:
        found.append(losses(batch))
        total = found[0].loss.sum()
        return total / step_items if step_items else total * 0.0

    loss = state.run_with_weights(mean)
    if loss is not None:
        loss.backward()
    if not step_items:
        return []
    finite = found[0].loss.isfinite().tolist()
    wrong = [state.task.label(item) for item, fine in zip(batch, finite, strict=True) if not fine]
    if wrong:
        return [_diverged(state.step, "the loss", found[0].loss.tolist(), wrong)]
    columns = {"loss": found[0].loss, **found[0].columns}
    numbers = {name: column.detach().double().tolist() for name, column in columns.items()}
    tally.add(numbers, [state.task.stream(item) for item in batch])
    return []


def _check_loss(state: TrainState[Item], guard: GuardConfig, tally: StepTally, items: Sequence[Item]) -> None:
    """Stop before the update if the loss has exploded."""
    if guard.factor is None or len(state.recent) < guard.window:
        return
    loss, usual = tally.mean("loss"), max(MIN_MEDIAN, median(map(abs, state.recent)))
    if abs(loss) > guard.factor * usual:
        names = [state.task.label(item) for item in items]
        raise InputError(
            f"Training step {state.step}: the loss is {loss:.4g}, more than {guard.factor:g} times the usual "
            f"{usual:.4g} (median of {len(state.recent)} steps), on {', '.join(names)}; check these rows, lower "
            "optim.lr or raise guard.factor, and start in a new directory."
        )


def _validate(state: TrainState[Item], record: StepRecord) -> StepRecord:
    """The record, extended by the validation means if validation is due."""
    validation = state.validation
    if validation is None or state.step % validation.config.every:
        return record
    found = validation.evaluate(state.vlm, state.task, state.trainable(), state.step, state.run_with_weights)
    return record.model_copy(update={"numbers": {**record.numbers, **found}})


def _update(state: TrainState[Item], settings: StepSettings, items: Sequence[Item]) -> float:
    """Clip, set the rates, step; returns the gradient's 2-norm over all weights before clipping."""
    weights = [weight for _, weight in state.trainable()]
    sum_gradients(state.processes, [weight for weight in weights if not is_sharded(weight)])
    norm = float(unsharded(nn.utils.clip_grad_norm_(weights, settings.clip_norm)))
    if not math.isfinite(norm):
        raise _diverged(state.step, "the gradient's norm", norm, [state.task.label(item) for item in items])
    for group in state.optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * settings.schedule(state.step)
    state.optimizer.step()
    return norm


def _diverged(step: int, what: str, value: object, names: Sequence[str]) -> InputError:
    return InputError(
        f"Training step {step}: {what} is {value} on {', '.join(names)}; check these rows, lower optim.lr "
        "or turn autocast off, and resume from the last checkpoint or start in a new directory."
    )
