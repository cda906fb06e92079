"""Comparison of questions, ignoring case, white space, punctuation and surrounding instructions; and reasoning tags.

`answer_alignment` uses it to compare the question in an answer file with the benchmark's list.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

#: Where a question, an instruction, an option or a role ends.
_ENDS = re.compile(r"(?<=[.?!:;()\n])")
_MARKS = re.compile(r"<(?:image|img|im|video)[^<>]{0,20}>|\[/?INST\]", re.IGNORECASE)
_OTHER = re.compile(r"[^\w]+")
#: An instruction on how to answer, up to the end of the segment, since some lists put no full stop before it (MME).
_INSTRUCTION = re.compile(
    r"\b(?:please )?(?:answer|reply|respond)\b.*\b(?:yes or no|yes no|single word|one word|a word|phrase"
    r"|options? letter|letter from|short answer|directly)\b.*|^(?:yes or no|one word)$"
)
#: Segments that name a role or a section; and letters of options.
_LABELS = re.compile(
    r"(?:the )?(?:user|assistant|human|system|ai|gpt|question|answer|context|hint|options?|choices?)|n a|[a-e]"
)
#: From this many words on, a segment may match the end of a longer one.
_LONG = 3
#: Misprints of published lists: POPE's first release has "imange" in 102 questions, its later one has "image".
_MISPRINTS = {"imange": "image"}


@lru_cache(maxsize=4096)
def _segments(text: str) -> tuple[str, ...]:
    found = []
    for part in _ENDS.split(_MARKS.sub("\n", text)):
        words = " ".join(_MISPRINTS.get(word, word) for word in _OTHER.sub(" ", part.casefold()).split())
        words = _INSTRUCTION.sub("", words).strip()
        if words and not _LABELS.fullmatch(words):
            found.append(words + "?" * part.rstrip().endswith("?"))
    return tuple(found)


def repeats_question(listed: str, given: str) -> bool:
    """Whether a text has words and they repeat the question of a list."""
    return bool(_segments(given)) and same_question(listed, given)


def same_question(listed: str, given: str) -> bool:
    """Whether a text of an answer file repeats the question of a list.

    True where one has every sentence of the other, in any order, or where the text has the question itself and half of
    the list's surrounding text, such as a context or options. A text without words matches every question.
    """
    if listed == given:
        return True
    ours, theirs = _segments(listed), _segments(given)
    one, other = {words.rstrip("?") for words in ours}, {words.rstrip("?") for words in theirs}
    one = {words if words in other else _ending_with(words, other) for words in one}
    if not one or not other or one <= other or other <= one:
        return True
    questions = {words.rstrip("?") for words in ours if words.endswith("?")}
    return (
        bool(questions)
        and {_ending_with(words, other) for words in questions} <= other
        and 2 * len(one & other) >= len(one)
    )


def _ending_with(words: str, others: set[str]) -> str:
    """A longer segment that ends with the words, such as "based on the image, is there a dog?"; else the words."""
    if words.count(" ") + 1 < _LONG:
        return words
    return next((other for other in others if other.endswith(f" {words}")), words)


_NAMES = "(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?)"
_LEFT, _RIGHT = "\N{WHITE LEFT-POINTING TRIANGLE}", "\N{WHITE RIGHT-POINTING TRIANGLE}"
#: Such as <think>, [THINK] (Magistral), the triangles of Kimi-VL, and <|begin_of_thought|> (Sky-T1).
_OPENING = re.compile(rf"<{_NAMES}>|\[THINK\]|{_LEFT}think{_RIGHT}|<\|begin_of_thought\|>", re.IGNORECASE)
_CLOSING = re.compile(rf"</{_NAMES}>|\[/THINK\]|{_LEFT}/think{_RIGHT}|<\|end_of_thought\|>", re.IGNORECASE)
#: Tags that some models put around the answer itself.
_WRAPPED = re.compile(
    r"\s*(?:<answer>(?P<tagged>.*?)(?:</answer>|\Z)|<\|begin_of_box\|>(?P<boxed>.*?)(?:<\|end_of_box\|>|\Z)).*",
    re.DOTALL | re.IGNORECASE,
)


class Reasoning(NamedTuple):
    """Position of the answer after the reasoning: `text[start:end]`; `is_cut` if the reasoning was never closed."""

    start: int
    end: int
    is_cut: bool


@dataclass
class ReasoningTally:
    """Whether to strip reasoning before scoring, and counts of answers with reasoning; filled during scoring."""

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
    """The reasoning of an answer; None where it has no reasoning tags.

    The answer follows the last closing tag, without surrounding white space or `<answer>` tags. A closing tag alone
    counts too: some chat templates put the opening one into the prompt. Reasoning that is never closed was cut off, and
    its answer is empty.
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
