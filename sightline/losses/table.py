"""The table of losses: for each name its function, whether it needs a reference, and the numbers it must be given.

The training loop asks this table and never the name; it holds no mathematics of its own. A new loss is a function in
its own file and one line here.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from sightline.errors import InputError
from sightline.losses.dpo import dpo, normalized_dpo
from sightline.losses.hinge import hinge
from sightline.losses.ipo import ipo
from sightline.losses.noisy_labels import conservative_dpo, robust_dpo
from sightline.losses.reference_free import orpo, sft, simpo
from sightline.losses.types import LossOut, PairLogps


@dataclass(frozen=True)
class Parameter:
    """A number that decides the science and so has no default: finite, greater than `above` and less than `below`."""

    name: str
    above: float = 0.0
    below: float = math.inf


@dataclass(frozen=True)
class LossSpec:
    """A loss and its needs.

    `function` takes the policy's PairLogps, then the reference's where `needs_reference` says so, and every one of
    `parameters` by keyword.
    """

    function: Callable[..., LossOut]
    needs_reference: bool
    parameters: tuple[Parameter, ...]


BETA, EPSILON = Parameter("beta"), Parameter("epsilon", below=0.5)
LOSSES: dict[str, LossSpec] = {
    "dpo": LossSpec(dpo, needs_reference=True, parameters=(BETA,)),
    "dpo-normalized": LossSpec(normalized_dpo, needs_reference=True, parameters=(BETA,)),
    "dpo-conservative": LossSpec(conservative_dpo, needs_reference=True, parameters=(BETA, EPSILON)),
    "dpo-robust": LossSpec(robust_dpo, needs_reference=True, parameters=(BETA, EPSILON)),
    "ipo": LossSpec(ipo, needs_reference=True, parameters=(BETA,)),
    "hinge": LossSpec(hinge, needs_reference=True, parameters=(BETA,)),
    "sft": LossSpec(sft, needs_reference=False, parameters=()),
    "simpo": LossSpec(simpo, needs_reference=False, parameters=(BETA, Parameter("gamma"))),
    "orpo": LossSpec(orpo, needs_reference=False, parameters=(Parameter("weight"),)),
}


@dataclass(frozen=True)
class Objective:
    """A loss with its parameters fixed: `objective(policy, reference)`, the reference being None if it needs none."""

    name: str
    needs_reference: bool
    bound: Callable[..., LossOut]

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> LossOut:
        """The loss and rewards of each pair; ValueError if a reference is lacking that the loss needs."""
        if not self.needs_reference:
            return self.bound(policy)
        if reference is None:
            raise ValueError(f"the loss {self.name} needs reference log-probabilities")
        return self.bound(policy, reference)


def make_objective(name: str, parameters: Mapping[str, float]) -> Objective:
    """Look a loss up and fix its parameters; InputError for an unknown name or a parameter missing, extra or wrong."""
    check_loss(name, parameters)
    spec = LOSSES[name]
    return Objective(name, spec.needs_reference, partial(spec.function, **parameters))


def check_loss(name: str, parameters: Mapping[str, object]) -> None:
    """Raise InputError unless `name` is a loss and `parameters` are exactly its parameters, each within its bound."""
    if name not in LOSSES:
        raise InputError(f"loss.name: no loss is called {name!r}{_nearest(name, LOSSES)}; known: {', '.join(LOSSES)}.")
    wanted = {parameter.name: parameter for parameter in LOSSES[name].parameters}
    for key in parameters:
        if key not in wanted:
            raise InputError(f"loss.{key}: the loss {name} has no such parameter{_nearest(key, wanted)}.")
    for key, parameter in wanted.items():
        if key not in parameters:
            raise InputError(f"loss.{key} is missing: the loss {name} needs it and it has no default; give a number.")
        value = parameters[key]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not parameter.above < value < parameter.below:  # type: ignore[operator]
            most = f" and less than {parameter.below:g}" if math.isfinite(parameter.below) else ""
            raise InputError(
                f"loss.{key} is {value!r}: the loss {name} needs a number greater than {parameter.above:g}{most}."
            )


def _nearest(word: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
