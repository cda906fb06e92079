"""The table of losses: for each name its function, the numbers it must be given, and what it needs of the pairs.

The training loop asks this table and never the name; it holds no mathematics of its own. A new loss is a function in
its own file and one line here; `objective` adds losses up.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sightline.errors import InputError
from sightline.losses.averaged import averaged_dpo
from sightline.losses.bco import bco, unshifted_bco
from sightline.losses.dense import dense_dpo
from sightline.losses.dpo import dpo, normalized_dpo
from sightline.losses.hinge import hinge
from sightline.losses.ipo import ipo
from sightline.losses.kto import kto
from sightline.losses.mdpo import anchored, conditional, mdpo
from sightline.losses.mrpo import CLIPS, WEIGHTS, mrpo, multi_dpo
from sightline.losses.noisy_labels import conservative_dpo, robust_dpo
from sightline.losses.parameters import Choice, Parameter, check_parameters, nearest
from sightline.losses.reference_free import orpo, sft, simpo
from sightline.losses.reward_model import bradley_terry
from sightline.losses.types import LossOut, Need
from sightline.losses.vdpo import GUIDES, vdpo


@dataclass(frozen=True)
class LossSpec:
    """A loss, what it must be told and what it needs.

    `function` takes the policy's PairLogps; then the reference's with `Need.REFERENCE`, or the sequence of all
    references' with `Need.REFERENCES`; then every one of `parameters`, and `shift` with `Need.SHIFT`, by keyword.
    One that `compares` learns from rejected answers too, so that there must be some.
    """

    function: Callable[..., LossOut]
    parameters: tuple[Parameter | Choice, ...] = ()
    needs: frozenset[Need] = frozenset()
    compares: bool = True


def _with(*needs: Need) -> frozenset[Need]:
    return frozenset({Need.REFERENCE, *needs})


BETA, EPSILON = Parameter("beta"), Parameter("epsilon", below=0.5)
KTO = (BETA, Parameter("chosen_weight"), Parameter("rejected_weight"))
MRPO = (BETA, Parameter("eta", below=1.0), Choice("clip", CLIPS))
LOSSES: dict[str, LossSpec] = {
    "dpo": LossSpec(dpo, (BETA,), _with()),
    "dpo-normalized": LossSpec(normalized_dpo, (BETA,), _with()),
    "dpo-conservative": LossSpec(conservative_dpo, (BETA, EPSILON), _with()),
    "dpo-robust": LossSpec(robust_dpo, (BETA, EPSILON), _with()),
    "dpo-averaged": LossSpec(
        averaged_dpo, (BETA, Parameter("gamma", below=1.0, closed=True)), _with(Need.SECOND_REJECTED)
    ),
    "dpo-dense": LossSpec(dense_dpo, (BETA, Parameter("gamma")), _with(Need.SPANS)),
    "ipo": LossSpec(ipo, (BETA,), _with()),
    "hinge": LossSpec(hinge, (BETA,), _with()),
    "kto": LossSpec(kto, KTO, _with(Need.MISMATCHED)),
    "bco": LossSpec(bco, (BETA,), _with(Need.SHIFT)),
    "bco-unshifted": LossSpec(unshifted_bco, (BETA,), _with()),
    "mdpo": LossSpec(mdpo, (BETA,), _with(Need.WEAKENED)),
    "mdpo-conditional": LossSpec(conditional, (BETA,), _with(Need.WEAKENED)),
    "mdpo-anchored": LossSpec(anchored, (BETA, Parameter("delta", above=-math.inf)), _with()),
    "v-dpo": LossSpec(vdpo, (BETA, Parameter("gamma", above=1.0), Choice("guide", GUIDES)), _with(Need.BLIND)),
    "mrpo": LossSpec(mrpo, (*MRPO, Choice("weights", WEIGHTS)), frozenset({Need.REFERENCES})),
    "multi-dpo": LossSpec(multi_dpo, (*MRPO, Choice("weights", ("paper", "uniform"))), frozenset({Need.REFERENCES})),
    "sft": LossSpec(sft, compares=False),
    "simpo": LossSpec(simpo, (BETA, Parameter("gamma"))),
    "orpo": LossSpec(orpo, (Parameter("odds_weight"),)),
    "reward": LossSpec(bradley_terry, (), frozenset({Need.REWARDS})),
}


def check_loss(name: str, parameters: Mapping[str, object]) -> None:
    """Raise InputError unless `name` is a loss and `parameters` are exactly its parameters, each within its bounds."""
    if name not in LOSSES:
        raise InputError(f"loss.name: no loss is called {name!r}{nearest(name, LOSSES)}; known: {', '.join(LOSSES)}.")
    check_parameters(name, LOSSES[name].parameters, parameters)
