"""The losses of a run: names of the table of losses, each with exactly the parameters that the table asks for."""

from pydantic import ConfigDict, model_validator

from sightline.config import Config
from sightline.errors import InputError
from sightline.losses.objective import Term, check_terms
from sightline.losses.types import Need

SUPPLIED = frozenset(Need)  # what training can give a loss


class LossConfig(Config):
    """A loss by its name in the table of losses, and beside the name exactly the parameters that the table asks for.

    `weight` is its share where several losses are added up.
    """

    model_config = ConfigDict(extra="allow")  # closed all the same: the table decides, below

    name: str
    weight: float = 1.0

    @property
    def term(self) -> Term:
        """The same in the terms of the losses room."""
        return Term(self.name, self.weight, dict(self.model_extra or {}))

    @model_validator(mode="after")
    def _ask_the_table(self) -> "LossConfig":
        try:
            check_terms([self.term])
        except InputError as error:
            raise ValueError(str(error)) from error
        return self
