"""A wrapper that takes length out of another judge's verdicts, since most judges like long answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import Field

from sightline.config import Config
from sightline.data.texts import count_words
from sightline.judges.judge import ComparisonInput, Judge, Preference, Verdict, prefer
from sightline.judges.registry import JUDGES, LENGTH_CONTROLLED
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput
from sightline.records import hash_json
from sightline.registry import config_union

if TYPE_CHECKING:

    class JudgeConfig(Protocol):
        """What the config of every judge has."""

        @property
        def name(self) -> str: ...

        def open(self, context: RunContext, /) -> Judge:
            """The judge."""
            ...

    PlainJudgeConfig = JudgeConfig
else:
    # Its own entry is left out, or judges would nest.
    _PLAIN = [entry.load() for name, entry in JUDGES.known().items() if name != LENGTH_CONTROLLED]
    PlainJudgeConfig = config_union(_PLAIN)


class LengthControlledJudgeConfig(Config):
    """Scores lose `per_word` for each word; of two answers of too different length neither is preferred."""

    name: Literal["length-controlled"] = Field(description="selects this judge")
    judge: PlainJudgeConfig = Field(description="the inner judge, whose scores are corrected for length")
    per_word: float = Field(default=0.0, ge=0, description="in the inner judge's units")
    max_ratio: float | None = Field(default=None, ge=1, description="longer over shorter, in words; beyond it: a tie")

    def open(self, tools: RunContext) -> Judge:
        """The judge."""
        return _LengthControlled(self, self.judge.open(tools))


class _LengthControlled:
    def __init__(self, config: LengthControlledJudgeConfig, inner: Judge) -> None:
        self._config, self._inner = config, inner
        self.identity = hash_json(["length-controlled", inner.identity, config.per_word, config.max_ratio])

    def score(self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
        return [
            Verdict(
                None if verdict.score is None else verdict.score - self._config.per_word * count_words(one.answer),
                verdict.aspects,
                verdict.note,
            )
            for one, verdict in zip(inputs, self._inner.score(inputs), strict=True)
        ]

    def compare(self, inputs: Sequence[ComparisonInput]) -> list[Preference | None]:
        # What the inner judge prefers when it compares knows no penalty.
        judge = _ScoresOnly(self) if self._config.per_word else self._inner
        found = iter(prefer(judge, [pair for pair in inputs if self._near(pair)]))
        return [next(found) if self._near(pair) else "tie" for pair in inputs]

    def _near(self, pair: ComparisonInput) -> bool:
        if self._config.max_ratio is None:
            return True
        lengths = sorted(max(1, count_words(one.answer)) for one in (pair.first, pair.second))
        return lengths[1] / lengths[0] <= self._config.max_ratio


class _ScoresOnly:
    """A judge without its comparisons, which know no penalty."""

    def __init__(self, judge: Judge) -> None:
        self._judge, self.identity = judge, judge.identity

    def score(self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
        return self._judge.score(inputs)


if not TYPE_CHECKING:
    JudgeConfig = config_union([*_PLAIN, LengthControlledJudgeConfig])
