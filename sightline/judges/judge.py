"""Protocol of judges: answers in, a score or "unscored" for each out, and a hash of all that decides the verdicts.

A failed call is unscored, never zero and never a win. Each judge is a file with its config class, whose `open` creates
it; `length_control` holds the union of the configs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast, runtime_checkable

from pydantic import Field

from sightline.config import Config
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput
from sightline.oracles import OracleName, oracle_part
from sightline.records import hash_json


@dataclass(frozen=True)
class Verdict:
    """Higher is better; None means unscored. `note` holds the reason, or the judge's reply."""

    score: float | None
    aspects: dict[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class ComparisonInput:
    """Two answers to one prompt."""

    first: JudgeInput
    second: JudgeInput


Preference = Literal["first", "second", "tie"]


class Judge(Protocol):
    """Scores answers. `identity` hashes its model, prompt, parse rule and settings; it goes into provenance."""

    @property
    def identity(self) -> str: ...

    def score(self, inputs: Sequence[JudgeInput], /) -> list[Verdict]:
        """Return one verdict per answer, in order."""
        ...


@runtime_checkable
class Comparer(Protocol):
    """Judge that can also compare two answers directly."""

    def compare(self, pairs: Sequence[ComparisonInput], /) -> list[Preference | None]:
        """Return the better answer of each pair, in both orders where position could matter; None is unscored."""
        ...


def prefer(judge: Judge, pairs: Sequence[ComparisonInput]) -> list[Preference | None]:
    """Return the answer of each pair that the judge prefers: by comparing if it can, else by its scores."""
    if isinstance(judge, Comparer):
        return judge.compare(pairs)
    verdicts = judge.score([answer for pair in pairs for answer in (pair.first, pair.second)])
    return [_by_score(one.score, two.score) for one, two in zip(verdicts[::2], verdicts[1::2], strict=True)]


def _by_score(first: float | None, second: float | None) -> Preference | None:
    if first is None or second is None:
        return None
    return "tie" if first == second else "first" if first > second else "second"


VERSION = 2  # of the score, in the judge's identity: cached scores of another version are not used


class OracleJudgeConfig(Config):
    """Score by ground truth: the complete truth is best; mistakes and omissions both cost."""

    name: Literal["oracle"] = Field(description="selects this judge")
    world: OracleName = Field(default="lab", description="the world whose ground truth is used")

    def open(self, context: RunContext) -> Judge:
        """The judge."""
        return _OracleJudge(self.world)


class _OracleJudge:
    def __init__(self, world: str) -> None:
        self._score = oracle_part(world, "target")
        self.identity = hash_json(["oracle", world, VERSION])

    def score(self, inputs: Sequence[JudgeInput], /) -> list[Verdict]:
        return [cast(Verdict, self._score(one)) for one in inputs]
