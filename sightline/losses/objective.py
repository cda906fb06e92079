"""Objectives: weighted sums of losses of the table, each with fixed parameters.

MPO, for example, is an objective of three terms. An objective knows the combined needs of its losses and passes each
its inputs; `sightline.train` computes the log-probs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from sightline.errors import InputError
from sightline.losses.table import LOSSES, check_loss
from sightline.losses.types import LossOut, PairLogps, Requirement


@dataclass(frozen=True)
class Term:
    """A loss of the table by name, with its weight in the sum and exactly the parameters that the table requires."""

    name: str
    weight: float = 1.0
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class BoundLoss:
    """A loss with fixed parameters: `function` takes the arguments of `table.LossSpec` except the parameters."""

    name: str
    function: Callable[..., LossOut]
    needs: frozenset[Requirement]
    weight: float = 1.0

    def __call__(self, policy: PairLogps, references: Sequence[PairLogps], shift: float) -> LossOut:
        """Compute the unweighted loss; raises ValueError if a required reference is missing."""
        shifts = {"shift": shift} if Requirement.SHIFT in self.needs else {}
        if Requirement.REFERENCES in self.needs:
            if len(references) < 2:
                raise ValueError(f"the loss {self.name} needs log-probabilities of at least two references")
            return self.function(policy, references, **shifts)
        if Requirement.REFERENCE not in self.needs:
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
    def needs(self) -> frozenset[Requirement]:
        """The combined needs of the losses."""
        return frozenset().union(*(term.needs for term in self.terms))

    def __call__(self, policy: PairLogps, references: Sequence[PairLogps] = (), *, shift: float = 0.0) -> LossOut:
        """Compute the weighted loss of each pair, the first loss's rewards, and the level of the loss with a shift.

        `references` start with the primary one; `shift` is the running mean of the levels of past steps. Raises
        ValueError if an input that `needs` names is missing.
        """
        outs = [term(policy, references, shift) for term in self.terms]
        loss = torch.stack([term.weight * out.loss for term, out in zip(self.terms, outs, strict=True)]).sum(0)
        level = next((out.level for out in outs if out.level is not None), None)
        return LossOut(loss, outs[0].chosen_reward, outs[0].rejected_reward, level)


def make_objective(terms: Sequence[Term]) -> Objective:
    """Look up the losses and fix their parameters.

    Raises:
        InputError: as in `check_terms`.
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
    """Check names, parameters and weights of the losses, and that the losses can be combined.

    Raises:
        InputError: no term; an unknown loss; a parameter or weight that is missing, unknown or out of bounds; losses of
            reward scores combined with losses of log-probs; two losses that need a shift.
    """
    if not terms:
        raise InputError("loss is an empty list; name at least one loss.")
    for term in terms:
        check_loss(term.name, term.parameters)
        if not (math.isfinite(term.weight) and term.weight > 0):
            raise InputError(
                f"loss.weight is {term.weight!r}: {term.name} needs a number greater than 0; or remove the loss."
            )
    scored = {term.name: Requirement.REWARDS in LOSSES[term.name].needs for term in terms}
    if len(set(scored.values())) > 1:
        heads, texts = ([name for name in scored if scored[name] is side] for side in (True, False))
        raise InputError(
            f"loss: {', '.join(heads)} uses scores of a reward head and {', '.join(texts)} uses log-probs; "
            "train a reward model with the first alone."
        )
    shifted = [term.name for term in terms if Requirement.SHIFT in LOSSES[term.name].needs]
    if len(shifted) > 1:
        raise InputError(f"loss: {' and '.join(shifted)} would share one running mean; keep one of them.")
