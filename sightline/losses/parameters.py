"""What a loss must be told: numbers within bounds and choices among words, none with a default.

Checks what a config gives against what the table declares, and names the nearest spelling. The declarations stand
beside the functions, in `table`.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sightline.errors import InputError


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
class Choice:
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


def check_parameters(name: str, wanted: Sequence[Parameter | Choice], given: Mapping[str, object]) -> None:
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
