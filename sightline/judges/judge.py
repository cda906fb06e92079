"""What a judge is: answers in, a score or "unscored" for each out, and a hash of all that decides its verdicts.

A failed call is unscored, never zero and never a win. Each judge is a file with its config class, whose `open` makes
it; `table` is the union of the configs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast, runtime_checkable

from sightline.config import Config
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput
from sightline.oracles import oracle_part
from sightline.records import hash_json


@dataclass(frozen=True)
class Verdict:
    """Higher is better; None is unscored, and `note` says why, or what the judge said."""

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
    """Scores answers. `identity` is a hash of its model, prompt, parse rule and settings; it goes into provenance."""

    @property
    def identity(self) -> str: ...

    def score(self, asked: Sequence[JudgeInput]) -> list[Verdict]:
        """One verdict an answer, in order."""
        ...


@runtime_checkable
class Comparer(Protocol):
    """A judge that can also be shown two answers at once."""

    def compare(self, asked: Sequence[ComparisonInput]) -> list[Preference | None]:
        """Which of two is better, both orders asked where position could matter; None is unscored."""
        ...


def prefer(judge: Judge, asked: Sequence[ComparisonInput]) -> list[Preference | None]:
    """Which of two answers the judge prefers: by comparing where it can, else by its scores."""
    if isinstance(judge, Comparer):
        return judge.compare(asked)
    verdicts = judge.score([answer for pair in asked for answer in (pair.first, pair.second)])
    return [_by_score(one.score, two.score) for one, two in zip(verdicts[::2], verdicts[1::2], strict=True)]


def _by_score(first: float | None, second: float | None) -> Preference | None:
    if first is None or second is None:
        return None
    return "tie" if first == second else "first" if first > second else "second"


VERSION = 2  # of the measure, in the judge's identity: scores of another measure are not compared or kept


class OracleJudgeConfig(Config):
    """Scores by ground truth: the whole truth is best; a mistake and a fact left out both cost."""

    name: Literal["oracle"]
    world: str = "lab"

    def open(self, tools: RunContext) -> Judge:
        """The judge."""
        return _OracleJudge(self.world)


class _OracleJudge:
    def __init__(self, world: str) -> None:
        self._score = oracle_part(world, "target")
        self.identity = hash_json(["oracle", world, VERSION])

    def score(self, asked: Sequence[JudgeInput]) -> list[Verdict]:
        return [cast(Verdict, self._score(one)) for one in asked]
