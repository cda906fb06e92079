"""Protocol of writers: each changes an answer as its task says, or returns no text if it cannot.

`prompts` holds the tasks' prompts; a writer's config class creates it with `open`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from pydantic import Field

from sightline.config import Config
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput
from sightline.oracles import OracleName, oracle_part
from sightline.records import hash_json

#: corrupt: add plausible mistakes; correct: remove mistakes and change nothing else; alter: replace one phrase by a
#: plausible wrong one; split: list the answer's claims, one per line; follow: rewrite so that a wish is met; restyle:
#: rephrase in the writer's own words; review: yes or no, whether a restyled answer states the same.
Task = Literal["corrupt", "correct", "alter", "split", "follow", "restyle", "review"]


@dataclass(frozen=True)
class WriterTask:
    """An answer and what to do with it; `seed` decides the result if the writer samples.

    `beside` is the wish of `follow`, and the restyled answer of `review`.
    """

    task: Task
    about: JudgeInput
    seed: int = 0
    beside: str = ""


@dataclass(frozen=True)
class Written:
    """The changed text, or None if the writer failed (`note` holds the reason), and its cost in tokens if known."""

    text: str | None
    tokens: int = 0
    note: str = ""


class Writer(Protocol):
    """Rewrites answers. `identity` is a hash of its model, prompts and settings; it goes into provenance."""

    @property
    def identity(self) -> str: ...

    def write(self, drafts: Sequence[WriterTask]) -> list[Written]:
        """Return one text per draft, in order."""
        ...


class OracleWriterConfig(Config):
    """Rewrite by ground truth and rules."""

    name: Literal["oracle"] = Field(description="selects this writer")
    world: OracleName = Field(default="lab", description="the world whose ground truth is used")

    def open(self, context: RunContext) -> Writer:
        """The writer."""
        return _OracleWriter(self.world)


class _OracleWriter:
    def __init__(self, world: str) -> None:
        self._rewrite = oracle_part(world, "rewrite")
        self.identity = hash_json(["oracle", world])

    def write(self, drafts: Sequence[WriterTask]) -> list[Written]:
        return [cast(Written, self._rewrite(draft)) for draft in drafts]
