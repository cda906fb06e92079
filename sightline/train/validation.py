"""Looking at held-out items now and then: the best weights are kept, and a run that gets no better may end.

No gradients, no dropout. What a look measures is the task's own loss; what it is compared by is `measure`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

import torch
from torch import Tensor, nn

from sightline.models.vlm import VLM, evaluating
from sightline.train.config.stopping import ValidationConfig
from sightline.train.sharding import Within, like, plainly, whole
from sightline.train.task import Item, Task

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
