"""The training loop, a generator of step records: the only one, whatever the loss and wherever the pairs come from.

It writes no file and draws no progress bar; between two steps the caller may save `TrainState` or walk away. Files and
bars are in `run`, saving is `checkpoint`.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sightline.errors import InputError
from sightline.losses.objective import Objective
from sightline.losses.types import LossOut, Need, PairLogps
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.train.log import StepRecord
from sightline.train.reference import Reference, score_pairs
from sightline.train.sources import PairSource


@dataclass
class TrainState:
    """All that a step changes: the policy's trainable weights, the optimizer, the source, the reference, the step."""

    vlm: VLM
    optimizer: torch.optim.Optimizer
    source: PairSource
    reference: Reference
    step: int = 0

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """The weights under training, by name."""
        return [(name, weight) for name, weight in self.vlm.model.named_parameters() if weight.requires_grad]


@dataclass(frozen=True)
class StepSettings:
    """How a step is done: `batch_size` pairs at a time, gradients clipped at `clip_norm`, the rate from `schedule`.

    `seed` and the step's number decide all dropout of the step, whatever came before it.
    """

    batch_size: int
    schedule: Callable[[int], float]
    clip_norm: float
    autocast: bool
    seed: int


def fit(state: TrainState, objective: Objective, settings: StepSettings) -> Iterator[StepRecord]:
    """Train until the source is empty, one optimizer step and one record at a time, going on at `state.step`.

    The loss of a step is the mean over all its pairs, so splitting them into smaller batches changes nothing. When a
    record is yielded, `state` is that of a run that has ended there. Raises InputError, with the state as before the
    step but for the source, where a loss or a gradient is not finite.
    """
    for pairs in state.source:
        started = time.perf_counter()
        state.optimizer.zero_grad(set_to_none=True)
        tally = Tally()
        with seeded(settings.seed, state.step):
            for start in range(0, len(pairs), settings.batch_size):
                _accumulate(state, objective, settings, pairs[start : start + settings.batch_size], len(pairs), tally)
        rate = settings.schedule(state.step)
        norm = _update(state, settings.clip_norm, rate, pairs)
        record = tally.record(step=state.step, grad_norm=norm, lr=rate, seconds=time.perf_counter() - started)
        state.step += 1
        yield record


@contextmanager
def seeded(seed: int, step: int) -> Iterator[None]:
    """Inside, torch's random numbers are a function of the arguments; outside, as if nothing had been drawn.

    Dropout draws from torch's global stream. Seeding it for each step, instead of saving it, makes a resumed step
    equal to the uninterrupted one by construction.
    """
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]))
        yield


def _accumulate(
    state: TrainState, objective: Objective, settings: StepSettings, batch: list[Pair], step_pairs: int, tally: "Tally"
) -> None:
    """Add the gradients of one batch, scaled for a mean over the `step_pairs` pairs of the step."""
    reference = state.reference(batch) if Need.REFERENCE in objective.needs else None
    state.vlm.model.train()
    policy = score_pairs(state.vlm, batch, autocast=settings.autocast)
    out = objective(policy, () if reference is None else (reference,))
    wrong = [pair.id for pair, finite in zip(batch, out.loss.isfinite().tolist(), strict=True) if not finite]
    if wrong:
        raise _diverged(state.step, "the loss", out.loss.tolist(), wrong)
    (out.loss.sum() / step_pairs).backward()
    tally.add(out, policy, reference)


def _update(state: TrainState, clip_norm: float, rate: float, pairs: Sequence[Pair]) -> float:
    """Clip, set the rate, step; returns the norm of the gradient (2-norm over all weights) before clipping."""
    norm = float(nn.utils.clip_grad_norm_([weight for _, weight in state.trainable()], clip_norm))
    if not math.isfinite(norm):
        raise _diverged(state.step, "the gradient's norm", norm, [pair.id for pair in pairs])
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    return norm


def _diverged(step: int, what: str, value: object, ids: Sequence[str]) -> InputError:
    return InputError(
        f"Training step {step}: {what} is {value} on the pairs {', '.join(ids)}; look at these pairs, lower optim.lr, "
        "or turn autocast off, and start again from the last checkpoint or in a new directory."
    )


class Tally:
    """Sums over the pairs of one step."""

    def __init__(self) -> None:
        self._pairs = 0
        self._sums: dict[str, float] = defaultdict(float)

    def add(self, out: LossOut, policy: PairLogps, reference: PairLogps | None) -> None:
        """Add one batch."""
        chosen_tokens, rejected_tokens = policy.lengths()
        columns: dict[str, Tensor] = {
            "loss": out.loss,
            "chosen_reward": out.chosen_reward,
            "rejected_reward": out.rejected_reward,
            "margin": out.chosen_reward - out.rejected_reward,
            "accuracy": out.chosen_reward > out.rejected_reward,
            "chosen_logps": policy.chosen,
            "rejected_logps": policy.rejected,
            "chosen_tokens": chosen_tokens,
            "rejected_tokens": rejected_tokens,
        }
        if reference is not None:
            columns |= {"chosen_ref_logps": reference.chosen, "rejected_ref_logps": reference.rejected}
        self._pairs += len(out.loss)
        for name, column in columns.items():
            self._sums[name] += float(column.detach().double().sum())

    def record(self, *, step: int, grad_norm: float, lr: float, seconds: float) -> StepRecord:
        """The means, beside what the step itself tells."""
        means: dict[str, float | None] = {"chosen_ref_logps": None, "rejected_ref_logps": None}
        means |= {name: total / self._pairs for name, total in self._sums.items()}
        row = {**means, "step": step, "grad_norm": grad_norm, "lr": lr, "seconds": seconds, "pairs": self._pairs}
        return StepRecord.model_validate(row)
