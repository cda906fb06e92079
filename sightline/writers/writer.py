"""What a writer is: it changes an answer as a task says, or says nothing where it cannot.

The tasks' prompts are `prompts`; each writer is a file with its config class, whose `open` makes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from sightline.config import Config
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput
from sightline.oracles import oracle_part
from sightline.records import hash_json

#: corrupt: put believable mistakes in; correct: take mistakes out, and change nothing else; alter: replace one phrase
#: by a believable wrong one; split: the claims of the answer, one a line; follow: say the same so that a wish is met;
#: restyle: say the same in the writer's own words; review: yes or no, whether a restyled answer says the same.
Task = Literal["corrupt", "correct", "alter", "split", "follow", "restyle", "review"]


@dataclass(frozen=True)
class WriterTask:
    """An answer and what to do with it; `seed` decides the result where the writer samples.

    `beside` is the wish of `follow`, and the restyled answer of `review`.
    """

    task: Task
    about: JudgeInput
    seed: int = 0
    beside: str = ""


@dataclass(frozen=True)
class Written:
    """The changed text, None where the writer failed (`note` says why), and the tokens it cost where known."""

    text: str | None
    tokens: int = 0
    note: str = ""


class Writer(Protocol):
    """Rewrites answers. `identity` is a hash of its model, prompts and settings; it goes into provenance."""

    @property
    def identity(self) -> str: ...

    def write(self, drafts: Sequence[WriterTask]) -> list[Written]:
        """One text a draft, in order."""
        ...


class OracleWriterConfig(Config):
    """Rewrites by ground truth and rules."""

    name: Literal["oracle"]
    world: str = "lab"

    def open(self, tools: RunContext) -> Writer:
        """The writer."""
        return _OracleWriter(self.world)


class _OracleWriter:
    def __init__(self, world: str) -> None:
        self._rewrite = oracle_part(world, "rewrite")
        self.identity = hash_json(["oracle", world])

    def write(self, drafts: Sequence[WriterTask]) -> list[Written]:
        return [cast(Written, self._rewrite(draft)) for draft in drafts]
