"""The mean of all numbers seen so far, as a value: what BCO's shift is made of.

It has no decay and no window; NeMo-RL's momentum is another choice and not this one. `bco` says what goes in.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RunningMean:
    """A sum and a count, both plain numbers, so that `dataclasses.asdict` goes into a checkpoint and comes back."""

    total: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float:
        """The mean, or 0 where nothing has been seen."""
        return self.total / self.count if self.count else 0.0

    def seen(self, values: Tensor) -> "RunningMean":
        """The same with further numbers in it."""
        return RunningMean(self.total + float(values.detach().double().sum()), self.count + values.numel())
