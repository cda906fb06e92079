"""The table of losses: for each name its function, the numbers it must be given, and what it needs of the pairs.

The training loop asks this table and never the name; it holds no mathematics of its own. A new loss is a function in
its own file and one line here; `objective` adds losses up.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sightline.errors import InputError
from sightline.losses.dpo import averaged_dpo, conservative_dpo, dense_dpo, dpo, hinge, ipo, normalized_dpo, robust_dpo
from sightline.losses.kto import bco, kto, unshifted_bco
from sightline.losses.mdpo import GUIDES, anchored, conditional, mdpo, vdpo
from sightline.losses.mrpo import CLIPS, WEIGHTS, mrpo, multi_dpo
from sightline.losses.reference_free import bradley_terry, orpo, sft, simpo
from sightline.losses.types import LossOut, Requirement
from sightline.registry import Registry, load_target


@dataclass(frozen=True)
class Parameter:
    """A number that decides the science and so has no default: finite, greater than `above` and less than `below`.

    With `closed`, `above` and `below` themselves are allowed too.
    """

    name: str
    above: float = 0.0
    below: float = math.inf
    closed: bool = False

    @property
    def wanted(self) -> str:
        """What may be given, as a phrase."""
        if self.closed:
            return f"a number from {self.above:g} to {self.below:g}"
        if not math.isfinite(self.above):
            return "a number"
        most = f" and less than {self.below:g}" if math.isfinite(self.below) else ""
        return f"a number greater than {self.above:g}{most}"

    @property
    def example(self) -> float:
        """A middling value."""
        return self.above + 0.25 if math.isfinite(self.above) else 0.0

    def accepts(self, value: object) -> bool:
        """Whether this may be given."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        edge = self.closed and value in (self.above, self.below)
        return self.above < value < self.below or edge


@dataclass(frozen=True)
class ChoiceParameter:
    """A choice where the papers differ from one another or from their code: one word of `options`, no default."""

    name: str
    options: tuple[str, ...]

    @property
    def wanted(self) -> str:
        """What may be given, as a phrase."""
        return f"one of {', '.join(self.options)}"

    @property
    def example(self) -> str:
        """The first option."""
        return self.options[0]

    def accepts(self, value: object) -> bool:
        """Whether this may be given."""
        return isinstance(value, str) and value in self.options


def check_parameters(name: str, wanted: Sequence[Parameter | ChoiceParameter], given: Mapping[str, object]) -> None:
    """Raise InputError unless exactly the wanted parameters of the loss `name` are given, each within its bounds."""
    by_name = {parameter.name: parameter for parameter in wanted}
    for key in given:
        if key not in by_name:
            raise InputError(f"loss.{key}: the loss {name} has no such parameter{nearest(key, by_name)}.")
    for key, parameter in by_name.items():
        if key not in given:
            raise InputError(
                f"loss.{key} is missing: the loss {name} needs it and it has no default; give {parameter.wanted}."
            )
        if not parameter.accepts(given[key]):
            raise InputError(f"loss.{key} is {given[key]!r}: the loss {name} needs {parameter.wanted}.")


def nearest(word: str, known: Iterable[str]) -> str:
    """A guess at what was meant, in brackets, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


@dataclass(frozen=True)
class LossSpec:
    """A loss, its parameters, and what it needs.

    `function` takes the policy's PairLogps; then the reference's with `Requirement.REFERENCE`, or the sequence of all
    references' with `Requirement.REFERENCES`; then every one of `parameters`, and `shift` with `Requirement.SHIFT`, by
    keyword. One that `compares` learns from rejected answers too, so that there must be some.
    """

    function: Callable[..., LossOut]
    parameters: tuple[Parameter | ChoiceParameter, ...] = ()
    needs: frozenset[Requirement] = frozenset()
    compares: bool = True


def _with(*needs: Requirement) -> frozenset[Requirement]:
    return frozenset({Requirement.REFERENCE, *needs})


BETA, EPSILON = Parameter("beta"), Parameter("epsilon", below=0.5)
KTO = (BETA, Parameter("chosen_weight"), Parameter("rejected_weight"))
MRPO = (BETA, Parameter("eta", below=1.0), ChoiceParameter("clip", CLIPS))
_SPECS: dict[str, LossSpec] = {
    "dpo": LossSpec(dpo, (BETA,), _with()),
    "dpo-normalized": LossSpec(normalized_dpo, (BETA,), _with()),
    "dpo-conservative": LossSpec(conservative_dpo, (BETA, EPSILON), _with()),
    "dpo-robust": LossSpec(robust_dpo, (BETA, EPSILON), _with()),
    "dpo-averaged": LossSpec(
        averaged_dpo, (BETA, Parameter("gamma", below=1.0, closed=True)), _with(Requirement.SECOND_REJECTED)
    ),
    "dpo-dense": LossSpec(dense_dpo, (BETA, Parameter("gamma")), _with(Requirement.SPANS)),
    "ipo": LossSpec(ipo, (BETA,), _with()),
    "hinge": LossSpec(hinge, (BETA,), _with()),
    "kto": LossSpec(kto, KTO, _with(Requirement.MISMATCHED)),
    "bco": LossSpec(bco, (BETA,), _with(Requirement.SHIFT)),
    "bco-unshifted": LossSpec(unshifted_bco, (BETA,), _with()),
    "mdpo": LossSpec(mdpo, (BETA,), _with(Requirement.CORRUPTED_IMAGE)),
    "mdpo-conditional": LossSpec(conditional, (BETA,), _with(Requirement.CORRUPTED_IMAGE)),
    "mdpo-anchored": LossSpec(anchored, (BETA, Parameter("delta", above=-math.inf)), _with()),
    "v-dpo": LossSpec(
        vdpo, (BETA, Parameter("gamma", above=1.0), ChoiceParameter("guide", GUIDES)), _with(Requirement.NO_IMAGE)
    ),
    "mrpo": LossSpec(mrpo, (*MRPO, ChoiceParameter("weights", WEIGHTS)), frozenset({Requirement.REFERENCES})),
    "multi-dpo": LossSpec(
        multi_dpo, (*MRPO, ChoiceParameter("weights", ("paper", "uniform"))), frozenset({Requirement.REFERENCES})
    ),
    "sft": LossSpec(sft, compares=False),
    "simpo": LossSpec(simpo, (BETA, Parameter("gamma"))),
    "orpo": LossSpec(orpo, (Parameter("odds_weight"),)),
    "reward": LossSpec(bradley_terry, (), frozenset({Requirement.REWARDS})),
}
LOSSES: Registry[LossSpec] = Registry("loss", "sightline.losses", load_target, _SPECS)


def check_loss(name: str, parameters: Mapping[str, object]) -> None:
    """Raise InputError unless `name` is a loss and `parameters` are exactly its parameters, each within its bounds."""
    if name not in LOSSES:
        raise InputError(f"loss.name: no loss is called {name!r}{nearest(name, LOSSES)}; known: {', '.join(LOSSES)}.")
    check_parameters(name, LOSSES[name].parameters, parameters)
