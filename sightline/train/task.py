"""Tasks, which turn a step's items into losses: the interface between the loop and what is learned.

A task computes losses with gradients and names the log's numbers; it steps no optimizer, draws no item and writes no
file but its own parts. `preference` is the task of preference pairs; `loop` runs any task.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.models.vlm import VLM, evaluating
from sightline.train.config.weights import ValidationConfig
from sightline.train.log import StepRecord
from sightline.train.processes import RunWithWeights, run_directly, shard_like, unsharded

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


@dataclass(frozen=True)
class Part:
    """A module that is trained beside the model, such as a value head; `lr` is its peak rate, None the optimizer's.

    Checkpoint and optimizer name its weights by the part's name.
    """

    module: nn.Module
    lr: float | None = None


@dataclass(frozen=True)
class Losses:
    """The loss of each item, with gradients, and its numbers for the log.

    `columns` have one number per item, under a field name of `StepRecord` or another name, which goes into its
    `numbers`. The log shows means over the items of the step, without NaN; a column of NaN alone is omitted. The loop
    averages `loss` over all items of the step, so a loss with other weights, such as a mean over all tokens of the
    step, scales each item's loss in `Task.begin`.
    """

    loss: Float[Tensor, "item"]
    columns: Mapping[str, Tensor]


class Task(Protocol[Item_contra]):
    """A task over items of one kind. The call order is `begin`, the function it returns, `end`."""

    @property
    def parts(self) -> Mapping[str, Part]:
        """The modules trained beside the model's own weights, by name; the same objects at every call."""
        ...

    def begin(self, items: Sequence[Item_contra], /) -> Callable[[Sequence[Item_contra]], Losses]:
        """The function from some of the step's items to their losses; the place for computations over the whole step.

        The loop calls the function on consecutive slices that fit into memory; its result for an item must not depend
        on the slicing. A pass without gradients over the whole step belongs here.
        """
        ...

    def end(self, record: StepRecord, /) -> None:
        """Called after the step with its means in `record`; the place to update running means."""
        ...

    def label(self, item: Item_contra, /) -> str:
        """The item's name in an error."""
        ...

    def stream(self, item: Item_contra, /) -> str:
        """The item's stream in a mixture, for separate means in the log; empty if there is none."""
        ...

    def state(self) -> dict[str, Any]:
        """The task's state for a checkpoint, beside its parts: small, plain JSON."""
        ...

    def restore(self, state: Mapping[str, Any], /) -> None:
        """Restore a state from `state`."""
        ...

    def save(self, directory: Path, /) -> None:
        """Write the parts into the finished run's adapter directory, which already holds the adapter."""
        ...


Weights = Sequence[tuple[str, nn.Parameter]]


@dataclass
class Validation(Generic[Item]):
    """Held-out items, and the best evaluation so far, with its weights on the CPU."""

    items: Sequence[Item]
    config: ValidationConfig
    batch_size: int
    best: float | None = None
    best_step: int = 0
    worse: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def evaluate(
        self, vlm: VLM, task: Task[Item], weights: Weights, step: int, run_with_weights: RunWithWeights = run_directly
    ) -> dict[str, float]:
        """Means over the items, by names for the log, after `step` steps. Every process evaluates all items."""
        totals: dict[str, float] = {}

        def work() -> None:
            losses = task.begin(self.items)
            for start in range(0, len(self.items), self.batch_size):
                batch = losses(self.items[start : start + self.batch_size])
                for name, column in {"loss": batch.loss, **batch.columns}.items():
                    if name in ("loss", "accuracy", "margin"):
                        totals[name] = totals.get(name, 0.0) + float(column.double().sum())

        with evaluating(vlm):
            run_with_weights(work)
        means = {name: total / len(self.items) for name, total in totals.items()}
        value = means["loss"] if self.config.measure == "loss" else -means["accuracy"]
        if self.best is None or value < self.best:
            self.best, self.best_step, self.worse = value, step, 0
            self.weights = {name: unsharded(weight.detach()).to("cpu", copy=True) for name, weight in weights}
        else:
            self.worse += 1
        return {f"validation_{name}": mean for name, mean in means.items()}

    @property
    def is_finished(self) -> bool:
        """Whether patience is exhausted."""
        return self.config.patience is not None and self.worse >= self.config.patience

    def restore_best(self, weights: Weights) -> None:
        """Set the model's weights to the best ones."""
        with torch.no_grad():
            for name, weight in weights:
                if name in self.weights:
                    weight.data.copy_(shard_like(self.weights[name].to(weight.device), weight.data))

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint, beside `weights`."""
        return {"best": self.best, "best_step": self.best_step, "worse": self.worse}

    def restore(self, state: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """Restore a state from `state`."""
        self.best, self.best_step, self.worse = state["best"], state["best_step"], state["worse"]
        self.weights = weights
