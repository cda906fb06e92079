"""What is learned from the items of a step: the seam between the one loop and preferences, reward models and rollouts.

A task turns items into losses with gradients and names the numbers of the log; it steps no optimizer, draws no item and
writes no file but its own parts. `preference` is the task of preference pairs, `loop` the loop around any of them.
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
from sightline.train.processes import Within, like, plainly, whole

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


@dataclass(frozen=True)
class Part:
    """A module that is trained beside the model, such as a value head; `lr` is its own peak rate, None the optimizer's.

    Its weights are in the checkpoint and under the optimizer by the part's name.
    """

    module: nn.Module
    lr: float | None = None


@dataclass(frozen=True)
class Losses:
    """The loss of each item, with gradients, and what the log shows of each.

    `columns` have one number an item each, by the names of `StepRecord`'s fields, or by names of their own, which come
    into its `numbers`. The log shows means over the items of the step; NaN is left out of them, and a column that is
    NaN throughout is not shown. The loop averages `loss` over all items of the step, so a loss with other weights, such
    as a mean over all tokens of the step, scales each item's in `Task.begin`.
    """

    loss: Float[Tensor, "item"]
    columns: Mapping[str, Tensor]


class Task(Protocol[Item_contra]):
    """A task over items of one kind. Its methods are called in the order `begin`, the function it returns, `end`."""

    @property
    def parts(self) -> Mapping[str, Part]:
        """What is trained beside the model's own trainable weights, by name; the same modules at every call."""
        ...

    def begin(self, items: Sequence[Item_contra], /) -> Callable[[Sequence[Item_contra]], Losses]:
        """The function from some of the step's items to their losses, after whatever must be known of all of them.

        The loop calls the function on consecutive slices that fit into memory; what it returns for an item must not
        depend on where these are cut. Here is the place for a pass without gradients over the whole step.
        """
        ...

    def end(self, record: StepRecord, /) -> None:
        """The step is done; `record` has its means. Here is the place to move running means."""
        ...

    def label(self, item: Item_contra, /) -> str:
        """The item's name in an error."""
        ...

    def stream(self, item: Item_contra, /) -> str:
        """Which stream of a mixture the item came from, for means of its own in the log; empty where there is none."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep of the task beside its parts: small, plain JSON."""
        ...

    def restore(self, state: Mapping[str, Any], /) -> None:
        """Take up a state that `state` gave."""
        ...

    def save(self, directory: Path, /) -> None:
        """Write the parts into the finished run's adapter directory, which holds the adapter already."""
        ...


Weights = Sequence[tuple[str, nn.Parameter]]


@dataclass
class Validation(Generic[Item]):
    """Held-out items, and the best of the looks at them so far, with its weights on the CPU."""

    items: Sequence[Item]
    config: ValidationConfig
    batch_size: int
    best: float | None = None
    best_step: int = 0
    worse: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def look(
        self, vlm: VLM, task: Task[Item], weights: Weights, step: int, within: Within = plainly
    ) -> dict[str, float]:
        """Means over the items, by names for the log; `step` steps are done. Every process looks at all items."""
        totals: dict[str, float] = {}

        def work() -> None:
            losses = task.begin(self.items)
            for start in range(0, len(self.items), self.batch_size):
                made = losses(self.items[start : start + self.batch_size])
                for name, column in {"loss": made.loss, **made.columns}.items():
                    if name in ("loss", "accuracy", "margin"):
                        totals[name] = totals.get(name, 0.0) + float(column.double().sum())

        with evaluating(vlm):
            within(work)
        means = {name: total / len(self.items) for name, total in totals.items()}
        value = means["loss"] if self.config.measure == "loss" else -means["accuracy"]
        if self.best is None or value < self.best:
            self.best, self.best_step, self.worse = value, step, 0
            self.weights = {name: whole(weight.detach()).to("cpu", copy=True) for name, weight in weights}
        else:
            self.worse += 1
        return {f"validation_{name}": mean for name, mean in means.items()}

    @property
    def due(self) -> bool:
        """Whether patience is at its end."""
        return self.config.patience is not None and self.worse >= self.config.patience

    def put_back(self, weights: Weights) -> None:
        """Make the best weights the model's."""
        with torch.no_grad():
            for name, weight in weights:
                if name in self.weights:
                    weight.data.copy_(like(self.weights[name].to(weight.device), weight.data))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps beside `weights`."""
        return {"best": self.best, "best_step": self.best_step, "worse": self.worse}

    def restore(self, state: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """Take up a state that `state` gave."""
        self.best, self.best_step, self.worse = state["best"], state["best_step"], state["worse"]
        self.weights = weights
