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
from sightline.models.device import read_values
from sightline.models.encoding import LookAhead
from sightline.models.memory import TRAINING, attempt, halve
from sightline.models.processes import Processes
from sightline.models.requests import Prefix
from sightline.models.vlm import VLM, train_mode
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
    `validation` measures held-out items if there are any; `recent` holds the losses of the last steps. `prefix` gives
    the prefix of an item, whose images are then processed ahead. `fitting` is the number of items that fit into a
    pass, once more did not.
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
    prefix: Callable[[Item], Prefix] | None = None
    fitting: int | None = None

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
    with state.vlm.prefetch.running():
        yield from _steps(state, settings)


def _steps(state: TrainState[Item], settings: StepSettings) -> Iterator[StepRecord]:
    for items in state.source:
        _look_ahead(state, items)
        started = time.perf_counter()
        train_mode(state.vlm.model)
        passes = state.processes.on_all(lambda: _fitting_gradients(state, settings, items))  # noqa: B023 - run at once
        clipped = _clip(state, settings)
        tally, norm = state.processes.on_all(lambda: _read(state, passes, clipped))  # noqa: B023 - run at once
        tally = merge_tallies(state.processes.gather(tally))
        _check_loss(state, settings.guard, tally, items)
        _update(state, settings, norm, items)
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


def _look_ahead(state: TrainState[Item], items: Sequence[Item]) -> None:
    """Start encoding the images of this step's later passes and of the next step."""
    if state.prefix is None:
        return
    wanted = [*state.processes.share(items), *state.processes.share(state.source.upcoming())]
    LookAhead(state.vlm, [state.prefix(item) for item in wanted]).reach(len(wanted))


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


#: The items of one pass, with their losses on the device.
Pass = tuple[Sequence[Item], Losses]


def _fitting_gradients(state: TrainState[Item], settings: StepSettings, items: Sequence[Item]) -> list[Pass[Item]]:
    """The same as `_gradients`, from the start with half of the items in a pass where memory does not suffice.

    Raises:
        InputError: a single item does not fit, or the weights are sharded, so that all processes run the same passes.
    """

    def compute() -> list[Pass[Item]]:
        state.optimizer.zero_grad(set_to_none=True)
        with seeded(settings.seed, state.step, state.processes.rank):
            return _gradients(state, items, min(settings.batch_size, state.fitting or settings.batch_size))

    while True:
        passes, failure = attempt(compute)
        if passes is not None:
            return passes
        if state.run_with_weights is not run_directly:
            raise InputError(
                f"a pass does not fit into memory ({failure}); lower batch_size or pass_tokens, or {TRAINING}"
            )
        size = min(settings.batch_size, state.fitting or settings.batch_size, len(state.processes.share(items)))
        state.optimizer.zero_grad(set_to_none=True)
        state.fitting = halve(state.vlm, size, failure or "", remedy=TRAINING)


def _gradients(state: TrainState[Item], items: Sequence[Item], batch_size: int) -> list[Pass[Item]]:
    """Compute the gradient of the step's loss from this process's share of the items."""
    found: list[Callable[[Sequence[Item]], Losses]] = []
    state.run_with_weights(lambda: found.append(state.task.begin(items)))
    share = state.processes.share(items)
    # If weights are gathered for each pass, all processes must run the same number of passes.
    most = -(-len(items) // state.processes.count)
    passes: list[Pass[Item]] = []
    for start in range(0, most, batch_size):
        batch = share[start : start + batch_size]
        if batch or state.run_with_weights is not run_directly:
            losses = _accumulate(state, found[0], batch or items[:1], len(items) if batch else 0)
            passes += [(batch, losses)] if batch else []
    return passes


def _accumulate(
    state: TrainState[Item],
    losses: Callable[[Sequence[Item]], Losses],
    batch: Sequence[Item],
    step_items: int,
) -> Losses:
    """Add the gradients of one batch, scaled for a mean over the step's `step_items` items (0: do not count it)."""
    found: list[Losses] = []

    def mean() -> Tensor:
        found.append(losses(batch))
        total = found[0].loss.sum()
        return total / step_items if step_items else total * 0.0

    loss = state.run_with_weights(mean)
    if loss is not None:
        loss.backward()
    one = found[0]
    return Losses(one.loss.detach(), {name: column.detach() for name, column in one.columns.items()})


def _read(state: TrainState[Item], passes: Sequence[Pass[Item]], norm: Tensor) -> tuple[StepTally, float]:
    """The numbers of this process's items and the gradient's norm, all read from the device at once.

    Raises:
        InputError: the loss of an item is not finite.
    """
    tables = [{"loss": losses.loss, **losses.columns} for _, losses in passes]
    flat = [column.double().flatten().to(norm.device) for columns in tables for column in columns.values()]
    values = iter(read_values(torch.cat([*flat, norm.double().flatten()])))
    tally = StepTally()
    for (batch, _), columns in zip(passes, tables, strict=True):
        numbers = {name: [next(values) for _ in batch] for name in columns}
        wrong = [
            state.task.label(item) for item, loss in zip(batch, numbers["loss"], strict=True) if not math.isfinite(loss)
        ]
        if wrong:
            raise _diverged(state.step, "the loss", numbers["loss"], wrong)
        tally.add(numbers, [state.task.stream(item) for item in batch])
    return tally, float(next(values))


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


def _clip(state: TrainState[Item], settings: StepSettings) -> Tensor:
    """Sum the gradients over all processes and clip them; returns their 2-norm over all weights before clipping."""
    weights = [weight for _, weight in state.trainable()]
    sum_gradients(state.processes, [weight for weight in weights if not is_sharded(weight)])
    return unsharded(nn.utils.clip_grad_norm_(weights, settings.clip_norm))


def _update(state: TrainState[Item], settings: StepSettings, norm: float, items: Sequence[Item]) -> None:
    """Set the rates and step."""
    if not math.isfinite(norm):
        raise _diverged(state.step, "the gradient's norm", norm, [state.task.label(item) for item in items])
    for group in state.optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * settings.schedule(state.step)
    state.optimizer.step()


def _diverged(step: int, what: str, value: object, names: Sequence[str]) -> InputError:
    return InputError(
        f"Training step {step}: {what} is {value} on {', '.join(names)}; check these rows, lower optim.lr "
        "or turn autocast off, and resume from the last checkpoint or start in a new directory."
    )
