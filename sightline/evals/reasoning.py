"""Reasoning that a model writes into its answer, between tags: found, and left out where that is wanted.

Official rules know no such tags and read reasoning as part of the answer. No benchmark is known here; `scoring` uses
this for all of them.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

_NAMES = "(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?)"
_LEFT, _RIGHT = "\N{WHITE LEFT-POINTING TRIANGLE}", "\N{WHITE RIGHT-POINTING TRIANGLE}"
#: Such as <think>, [THINK] (Magistral), the triangles of Kimi-VL, and <|begin_of_thought|> (Sky-T1).
_OPENING = re.compile(rf"<{_NAMES}>|\[THINK\]|{_LEFT}think{_RIGHT}|<\|begin_of_thought\|>", re.IGNORECASE)
_CLOSING = re.compile(rf"</{_NAMES}>|\[/THINK\]|{_LEFT}/think{_RIGHT}|<\|end_of_thought\|>", re.IGNORECASE)
#: What some models put around the answer itself.
_WRAPPED = re.compile(
    r"\s*(?:<answer>(?P<tagged>.*?)(?:</answer>|\Z)|<\|begin_of_box\|>(?P<boxed>.*?)(?:<\|end_of_box\|>|\Z)).*",
    re.DOTALL | re.IGNORECASE,
)


class Reasoning(NamedTuple):
    """Where the answer behind the reasoning is: `text[start:end]`; `is_cut` where the reasoning was never closed."""

    start: int
    end: int
    is_cut: bool


@dataclass
class ReasoningTally:
    """Whether reasoning is left out before scoring, and how many answers had some; filled while answers are scored."""

    strip: bool = False
    answers: int = 0
    found: int = 0
    cut: int = 0

    def add(self, reasoning: Reasoning | None) -> None:
        """Count one answer."""
        self.answers += 1
        self.found += reasoning is not None
        self.cut += reasoning is not None and reasoning.is_cut


def find_reasoning(text: str) -> Reasoning | None:
    """The reasoning of an answer; None where it has no tags of the kind.

    The answer is what follows the last closing tag, without white space around it and without `<answer>` tags. A
    closing tag alone counts too: some chat templates put the opening one into the prompt. Reasoning that is opened and
    never closed was cut off, and its answer is empty.
    """
    if not any(mark in text for mark in ("<", "[", _LEFT)):
        return None
    closed = max((found.end() for found in _CLOSING.finditer(text)), default=0)
    if _OPENING.search(text, closed):
        return Reasoning(len(text), len(text), is_cut=True)
    if not closed:
        return None
    start, end = closed, len(text)
    if (wrapped := _WRAPPED.fullmatch(text, closed)) is not None:
        start, end = wrapped.span("tagged" if wrapped["tagged"] is not None else "boxed")
    answer = text[start:end]
    start += len(answer) - len(answer.lstrip())
    return Reasoning(start, max(start, end - (len(answer) - len(answer.rstrip()))), is_cut=False)
