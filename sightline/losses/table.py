"""The table of losses: for each name its function, the numbers it must be given, and what it needs of the pairs.

The training loop asks this table and never the name; it holds no mathematics of its own. A new loss is a function in
its own file and one line here; `objective` adds losses up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sightline.errors import InputError
from sightline.losses.dpo import dpo, normalized_dpo
from sightline.losses.hinge import hinge
from sightline.losses.ipo import ipo
from sightline.losses.noisy_labels import conservative_dpo, robust_dpo
from sightline.losses.parameters import Choice, Parameter, check_parameters, nearest
from sightline.losses.reference_free import orpo, sft, simpo
from sightline.losses.types import LossOut, Need


@dataclass(frozen=True)
class LossSpec:
    """A loss, what it must be told and what it needs.

    `function` takes the policy's PairLogps; then the reference's with `Need.REFERENCE`, or the sequence of all
    references' with `Need.REFERENCES`; then every one of `parameters`, and `shift` with `Need.SHIFT`, by keyword.
    """

    function: Callable[..., LossOut]
    parameters: tuple[Parameter | Choice, ...] = ()
    needs: frozenset[Need] = frozenset()


REFERENCE = frozenset({Need.REFERENCE})
BETA, EPSILON = Parameter("beta"), Parameter("epsilon", below=0.5)
LOSSES: dict[str, LossSpec] = {
    "dpo": LossSpec(dpo, (BETA,), REFERENCE),
    "dpo-normalized": LossSpec(normalized_dpo, (BETA,), REFERENCE),
    "dpo-conservative": LossSpec(conservative_dpo, (BETA, EPSILON), REFERENCE),
    "dpo-robust": LossSpec(robust_dpo, (BETA, EPSILON), REFERENCE),
    "ipo": LossSpec(ipo, (BETA,), REFERENCE),
    "hinge": LossSpec(hinge, (BETA,), REFERENCE),
    "sft": LossSpec(sft),
    "simpo": LossSpec(simpo, (BETA, Parameter("gamma"))),
    "orpo": LossSpec(orpo, (Parameter("odds_weight"),)),
}


def check_loss(name: str, parameters: Mapping[str, object]) -> None:
    """Raise InputError unless `name` is a loss and `parameters` are exactly its parameters, each within its bounds."""
    if name not in LOSSES:
        raise InputError(f"loss.name: no loss is called {name!r}{nearest(name, LOSSES)}; known: {', '.join(LOSSES)}.")
    check_parameters(name, LOSSES[name].parameters, parameters)
