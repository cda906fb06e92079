"""Oracles: worlds whose samples come with exact truth, such as the embedded lab. Plugins register them."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator

from sightline.errors import InputError
from sightline.registry import Entry, Registry, load_target


@dataclass(frozen=True)
class OracleEntry(Entry):
    """A world with exact truth; every field but `help` is a place, "package.module:attribute", imported when used.

    `target` scores an answer by the truth (`judges.judge.Verdict` of a `JudgeInput`), `rewrite` changes one
    (`writers.writer.Written` of a `WriterTask`), `wishes` proposes opposite wishes for a sample. `samples` draws
    samples into a directory by settings of the class `samples_config`. `base_model` is the model of the world.
    """

    rewrite: str = ""
    wishes: str = ""
    samples: str = ""
    samples_config: str = ""
    base_model: str = ""


ORACLES: Registry[OracleEntry] = Registry("oracle", "sightline.oracles", load_target)


def _known(name: str) -> str:
    try:
        ORACLES.entry(name)
    except InputError as error:
        raise ValueError(str(error)) from error
    return name


#: The name of an oracle in a config, checked when the config is read.
OracleName = Annotated[str, AfterValidator(_known)]


def oracle_part(name: str, part: str) -> Any:
    """What an oracle offers under the name of a field of its entry.

    Raises:
        InputError: no such oracle, or it does not offer that.
    """
    entry = ORACLES.entry(name)
    place = getattr(entry, part)
    if not place:
        raise InputError(f"oracle {name!r} offers no {part}; choose another oracle")
    return load_target(place)
