"""An objective: a weighted sum of losses of the table, each with its parameters fixed.

MPO, for one, is an objective of three terms and no loss of its own. It knows what the losses need together and hands
each its own share; where the log-probs come from is `sightline.train`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from sightline.errors import InputError
from sightline.losses.table import LOSSES, check_loss
from sightline.losses.types import LossOut, Need, PairLogps


@dataclass(frozen=True)
class Term:
    """A loss of the table by its name, its weight in the sum, and exactly the parameters that the table asks for."""

    name: str
    weight: float = 1.0
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class BoundLoss:
    """A loss with its parameters fixed: `function` takes what `table.LossSpec` says but for the parameters."""

    name: str
    function: Callable[..., LossOut]
    needs: frozenset[Need]
    weight: float = 1.0

    def __call__(self, policy: PairLogps, references: Sequence[PairLogps], shift: float) -> LossOut:
        """The loss alone, unweighted; ValueError if a reference is lacking that it needs."""
        shifts = {"shift": shift} if Need.SHIFT in self.needs else {}
        if Need.REFERENCES in self.needs:
            if len(references) < 2:
                raise ValueError(f"the loss {self.name} needs log-probabilities of at least two references")
            return self.function(policy, references, **shifts)
        if Need.REFERENCE not in self.needs:
            return self.function(policy, **shifts)
        if not references:
            raise ValueError(f"the loss {self.name} needs reference log-probabilities")
        return self.function(policy, references[0], **shifts)


@dataclass(frozen=True)
class Objective:
    """A weighted sum of losses: `objective(policy, references, shift=...)`."""

    terms: tuple[BoundLoss, ...]

    @property
    def name(self) -> str:
        """The losses' names, joined."""
        return "+".join(term.name for term in self.terms)

    @property
    def needs(self) -> frozenset[Need]:
        """What the losses need together."""
        return frozenset().union(*(term.needs for term in self.terms))

    def __call__(self, policy: PairLogps, references: Sequence[PairLogps] = (), *, shift: float = 0.0) -> LossOut:
        """The weighted loss of each pair, the rewards of the first loss, and the level of the one that has a shift.

        `references` are in order, the primary one first; `shift` is the running mean of the levels of past steps.
        Raises ValueError where something is lacking that `needs` names.
        """
        outs = [term(policy, references, shift) for term in self.terms]
        loss = torch.stack([term.weight * out.loss for term, out in zip(self.terms, outs, strict=True)]).sum(0)
        level = next((out.level for out in outs if out.level is not None), None)
        return LossOut(loss, outs[0].chosen_reward, outs[0].rejected_reward, level)


def make_objective(terms: Sequence[Term]) -> Objective:
    """Look the losses up and fix their parameters.

    Raises:
        InputError: as `check_terms`.
    """
    check_terms(terms)
    specs = [LOSSES[term.name] for term in terms]
    return Objective(
        tuple(
            BoundLoss(term.name, partial(spec.function, **term.parameters), spec.needs, term.weight)
            for term, spec in zip(terms, specs, strict=True)
        )
    )


def check_terms(terms: Sequence[Term]) -> None:
    """Check that losses are known, each with its parameters, and that they go together.

    Raises:
        InputError: no term, an unknown loss, a parameter or weight that is missing, extra or out of bounds, scores of
            a reward head beside log-probs, or two losses that need a shift.
    """
    if not terms:
        raise InputError("loss is an empty list; name at least one loss.")
    for term in terms:
        check_loss(term.name, term.parameters)
        if not (math.isfinite(term.weight) and term.weight > 0):
            raise InputError(
                f"loss.weight is {term.weight!r}: {term.name} needs a number greater than 0; or leave the loss out."
            )
    scored = {term.name: Need.REWARDS in LOSSES[term.name].needs for term in terms}
    if len(set(scored.values())) > 1:
        heads, texts = ([name for name in scored if scored[name] is side] for side in (True, False))
        raise InputError(
            f"loss: {', '.join(heads)} goes by scores of a reward head and {', '.join(texts)} by log-probs; "
            "train a reward model by the first alone."
        )
    shifted = [term.name for term in terms if Need.SHIFT in LOSSES[term.name].needs]
    if len(shifted) > 1:
        raise InputError(f"loss: {' and '.join(shifted)} would share one running mean; keep one of them.")
