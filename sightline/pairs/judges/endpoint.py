"""The judge behind an endpoint: a language model that sees the picture grades answers, or compares two of them.

What is asked and how replies are read is `prompts`, how a server is asked `sightline.endpoint`. A call that failed, a
reply that was cut off, and one that breaks the rule are unscored.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import field_validator

from sightline.config import Config
from sightline.endpoint import Ask, Endpoint, EndpointConfig
from sightline.pairs.builder import Tools
from sightline.pairs.judges.base import Compared, Judge, Judged, Preference, Verdict
from sightline.pairs.judges.prompts import (
    COMPARE,
    GRADE,
    OVERALL,
    PARSE_RULE,
    RATE,
    compare_prompt,
    grade_prompt,
    meaning_of,
    read_better,
    read_grades,
)
from sightline.records import hash_json

_SWAPPED: dict[Preference, Preference] = {"first": "second", "second": "first", "tie": "tie"}


class EndpointJudgeConfig(Config):
    """A model on a server of the OpenAI kind: the annotator of arXiv 2407.02477, or the grader of VLFeedback.

    `compare` shows two answers at once, in both orders; `grade` asks for each answer alone, from 1 to 10, or, with
    `aspects`, from 1 to 5 in each: `helpfulness`, `faithfulness`, `ethics`, or `name: what it means`. The score is
    then their mean. Whoever wants scores of a comparing judge gets its grades.
    """

    name: Literal["endpoint"]
    server: EndpointConfig
    mode: Literal["compare", "grade"] = "compare"
    aspects: tuple[str, ...] = ()
    show_reference: bool = False  # arXiv 2407.02477 found no difference

    @field_validator("aspects")
    @classmethod
    def _are_aspects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [meaning_of(aspect)[0] for aspect in value]
        if len(set(names)) < len(names):
            raise ValueError("an aspect is named twice")
        return value

    def open(self, tools: Tools) -> Judge:
        """The judge."""
        grader = _Grader(self, Endpoint(self.server))
        return _Comparer(self, grader) if self.mode == "compare" else grader


class _Grader:
    def __init__(self, config: EndpointJudgeConfig, endpoint: Endpoint) -> None:
        self._config, self.endpoint = config, endpoint
        asked = [GRADE, RATE, list(map(meaning_of, config.aspects)), config.show_reference]
        self.identity = hash_json(["endpoint grade", PARSE_RULE, config.server.identity, *asked])

    def score(self, asked: Sequence[Judged]) -> list[Verdict]:
        config = self._config
        asks = [
            Ask(grade_prompt(one, config.aspects, reference=config.show_reference), one.prefix.images) for one in asked
        ]
        return [self._verdict(reply.text, reply.note) for reply in self.endpoint.ask(asks)]

    def _verdict(self, said: str | None, note: str) -> Verdict:
        if said is None:
            return Verdict(None, note=note)
        grades = read_grades(said, self._config.aspects)
        if grades is None:
            return Verdict(None, note=f"unparsable reply: {said}")
        return Verdict(sum(grades.values()) / len(grades), {} if OVERALL in grades else grades, note=said)


class _Comparer:
    def __init__(self, config: EndpointJudgeConfig, grader: _Grader) -> None:
        self._config, self._grader = config, grader
        self.identity = hash_json(["endpoint compare", COMPARE, grader.identity])

    def score(self, asked: Sequence[Judged]) -> list[Verdict]:
        return self._grader.score(asked)

    def compare(self, asked: Sequence[Compared]) -> list[Preference | None]:
        """Both orders: agreeing they stand, disagreeing they are a tie, and one unscored leaves nothing."""
        orders = [order for pair in asked for order in (pair, Compared(pair.second, pair.first))]
        asks = [
            Ask(compare_prompt(order, reference=self._config.show_reference), order.first.prefix.images)
            for order in orders
        ]
        replies = self._grader.endpoint.ask(asks)
        found = [None if reply.text is None else read_better(reply.text) for reply in replies]
        return [_agreed(one, two) for one, two in zip(found[::2], found[1::2], strict=True)]


def _agreed(straight: Preference | None, swapped: Preference | None) -> Preference | None:
    if straight is None or swapped is None:
        return None
    return straight if straight == _SWAPPED[swapped] else "tie"
