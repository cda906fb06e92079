"""The judge that knows the truth, where a sample has it; today the embedded lab's."""

from collections.abc import Sequence
from importlib import import_module
from typing import Literal, cast

from sightline.config import Config
from sightline.pairs.builder import Tools
from sightline.pairs.judges.base import Judge, Judged, Verdict
from sightline.records import hash_json

#: Whose truth: an import path, since the lab is imported by no other room.
ORACLES = {"lab": "sightline.lab.oracle:score"}
VERSION = 2  # of the measure, in the judge's identity: scores of another measure are not compared or kept


class OracleJudgeConfig(Config):
    """Scores by ground truth: the whole truth is best; a mistake and a fact left out both cost."""

    name: Literal["oracle"]
    world: Literal["lab"] = "lab"

    def open(self, tools: Tools) -> Judge:
        """The judge."""
        return _Oracle(self.world)


class _Oracle:
    def __init__(self, world: str) -> None:
        module, _, function = ORACLES[world].partition(":")
        self._score = getattr(import_module(module), function)
        self.identity = hash_json(["oracle", world, VERSION])

    def score(self, asked: Sequence[Judged]) -> list[Verdict]:
        return [cast(Verdict, self._score(one)) for one in asked]
