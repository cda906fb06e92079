"""Judge behind an endpoint: a vision-language model grades answers, or compares two of them.

The prompts and the rules for reading replies are here; `sightline.endpoint` sends the requests. Failed calls, truncated
replies and replies that break the rule are unscored.
"""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from sightline.config import Config
from sightline.endpoint import Ask, Endpoint, EndpointConfig
from sightline.judges.judge import ComparisonInput, Judge, Preference, Verdict
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput, conversation_text
from sightline.records import hash_json

#: Increase it with any change of the rules below: it is hashed into the judge's identity.
PARSE_RULE = 1
OVERALL, OVERALL_TOP, ASPECT_TOP = "score", 10, 5

ASPECTS: dict[str, str] = {
    "helpfulness": "does it answer what was asked, to the point, and tell what matters to whoever asked",
    "faithfulness": (
        "does the picture bear out every object, count, color, attribute, place and relation that it names"
    ),
    "ethics": "is it free of what hurts, insults, misleads into danger or betrays private matters",
}

_REASON = "Give your reasons in at most four short sentences. Then end with"

GRADE = (
    "Look at the picture. Below are a question about it and an answer. Grade the answer from 1 (useless, or wrong in "
    "most of what it says) to 10 (all of it is right, and it says what was asked). Whatever it claims that the picture "
    "does not show counts heavily against it: objects, counts, colors, attributes, places, relations. What it leaves "
    "out counts less than what it makes up. Length and style count nothing. "
    f"{_REASON} this line, N being the grade, and nothing after it:\nScore: N"
)

RATE = (
    "Look at the picture. Below are a question about it and an answer. Rate the answer in each of these aspects from 1 "
    "(very bad) to 5 (excellent), each by itself:\n{aspects}\n"
    f"{_REASON} these lines, N being the rating, and nothing after them:\n{{lines}}"
)

COMPARE = (
    "Look at the picture. Below are a question about it and two responses. Say which response is better. The better "
    "one makes up less: everything in it must be there in the picture, and attributes and relations must be as the "
    "picture shows them. It helps: it answers what was asked, briefly, without questions or remarks that nobody needs. "
    "It does not mention what the picture leaves unclear. Neither the order of the responses nor their length speaks "
    f"for one of them. {_REASON} one of these three lines, and nothing after it:\nBetter: 1\nBetter: 2\nBetter: tie"
)

# Bold and "7/10" are accepted; a looser rule could misread a reply.
_NUMBER = r"[*_`]*\s*[:=]\s*[*_`]*\s*(\d{1,3}(?:\.\d+)?)(?:\s*/\s*(\d+))?[*_`\s.]*$"
_BETTER = re.compile(r"^[*_`\s]*better[*_`]*\s*[:=]\s*[*_`]*\s*(?:response\s+)?(1|2|tie)[*_`\s.]*$", re.IGNORECASE)


def parse_aspect(aspect: str) -> tuple[str, str]:
    """Split an aspect into name and meaning: one of `ASPECTS`, or `NAME: WHAT IT MEANS`.

    Raises:
        ValueError: it is neither.
    """
    name, colon, meaning = (part.strip() for part in aspect.partition(":"))
    if not re.fullmatch(r"[A-Za-z][A-Za-z ]{0,39}", name) or (colon and not meaning):
        raise ValueError(f"{aspect!r} is not an aspect; write a name of letters, or 'name: what it means'")
    if not colon and name.lower() not in ASPECTS:
        raise ValueError(f"aspect {aspect!r} is not one of {', '.join(ASPECTS)}; write '{name}: what it means'")
    return name.lower(), meaning or ASPECTS[name.lower()]


def grade_prompt(graded: JudgeInput, aspects: Sequence[str], *, reference: bool) -> str:
    """Prompt about one answer: an overall grade, or a rating in each aspect."""
    meanings = dict(parse_aspect(aspect) for aspect in aspects)
    if not meanings:
        return f"{GRADE}\n\n{_question(graded, reference)}\n\nAnswer: {graded.answer}"
    listed = "\n".join(f"- {name.capitalize()}: {meaning}?" for name, meaning in meanings.items())
    lines = "\n".join(f"{name.capitalize()}: N" for name in meanings)
    # Not `format`: a meaning may contain braces.
    rate = RATE.replace("{aspects}", listed).replace("{lines}", lines)
    return f"{rate}\n\n{_question(graded, reference)}\n\nAnswer: {graded.answer}"


def compare_prompt(pair: ComparisonInput, *, reference: bool) -> str:
    """Prompt about two answers; the first one is Response 1."""
    question = _question(pair.first, reference)
    return f"{COMPARE}\n\n{question}\n\nResponse 1: {pair.first.answer}\n\nResponse 2: {pair.second.answer}"


def read_grades(reply: str, aspects: Sequence[str]) -> dict[str, float] | None:
    """Grades by name, or `OVERALL` alone without aspects; None if the reply breaks the rule.

    The rule: the last non-blank lines are `Name: N`, one for each aspect in any order, with N on the scale.
    """
    names = [parse_aspect(aspect)[0] for aspect in aspects] or [OVERALL]
    top = ASPECT_TOP if aspects else OVERALL_TOP
    found: dict[str, float] = {}
    for line in _last_lines(reply, len(names)):
        for name in names:
            match = re.match(rf"^[*_`\s-]*{re.escape(name)}{_NUMBER}", line, re.IGNORECASE)
            if match and 1 <= float(match[1]) <= top and match[2] in (None, str(top)):
                found[name] = float(match[1])
    return {name: found[name] for name in names} if len(found) == len(names) else None


def read_better(reply: str) -> Preference | None:
    """Verdict of the last line, `Better: 1`, `Better: 2` or `Better: tie`; None if it is none of these."""
    matches = [_BETTER.match(line) for line in _last_lines(reply, 1)]
    verdicts: dict[str, Preference] = {"1": "first", "2": "second", "tie": "tie"}
    return next((verdicts[match[1].lower()] for match in matches if match), None)


def _question(judged: JudgeInput, reference: bool) -> str:
    shown = f"\n\nReference answer, which is right: {judged.reference}" if reference and judged.reference else ""
    return f"Question: {conversation_text(judged.prefix)}{shown}"


def _last_lines(reply: str, count: int) -> list[str]:
    return [line for line in reply.splitlines() if line.strip()][-count:]


_SWAPPED: dict[Preference, Preference] = {"first": "second", "second": "first", "tie": "tie"}


class EndpointJudgeConfig(Config):
    """A model behind an OpenAI-compatible server: the annotator of arXiv 2407.02477, or the grader of VLFeedback.

    `compare` shows two answers at once, in both orders; `grade` asks for a grade of each answer alone, from 1 to 10,
    or, with `aspects`, from 1 to 5 in each: `helpfulness`, `faithfulness`, `ethics`, or `name: what it means`. The
    score is then their mean. A caller that needs scores from a comparing judge gets its grades.
    """

    name: Literal["endpoint"] = Field(description="selects this judge")
    server: EndpointConfig = Field(description="the server of the judge")
    mode: Literal["compare", "grade"] = Field(
        default="compare", description="compare two answers at once, in both orders, or grade each answer alone"
    )
    aspects: tuple[str, ...] = Field(
        default=(),
        description="aspects to grade from 1 to 5 each: helpfulness, faithfulness, ethics, or `name: what it means`; "
        "empty: one grade from 1 to 10",
    )
    show_reference: bool = Field(
        default=False,
        description="show the judge the sample's reference; off, since arXiv 2407.02477 found no difference",
    )

    @field_validator("aspects")
    @classmethod
    def _distinct_aspects(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [parse_aspect(aspect)[0] for aspect in value]
        if len(set(names)) < len(names):
            raise ValueError("an aspect is named twice; remove one")
        return value

    def open(self, context: RunContext) -> Judge:
        """The judge."""
        grader = _Grader(self, Endpoint(self.server))
        return _Comparer(self, grader) if self.mode == "compare" else grader


class _Grader:
    def __init__(self, config: EndpointJudgeConfig, endpoint: Endpoint) -> None:
        self._config, self.endpoint = config, endpoint
        rules = [GRADE, RATE, list(map(parse_aspect, config.aspects)), config.show_reference]
        self.identity = hash_json(["endpoint grade", PARSE_RULE, config.server.identity, *rules])

    def score(self, inputs: Sequence[JudgeInput], /) -> list[Verdict]:
        aspects, reference = self._config.aspects, self._config.show_reference
        asks = [Ask(grade_prompt(one, aspects, reference=reference), one.prefix.images) for one in inputs]
        return [self._verdict(reply.text, reply.note) for reply in self.endpoint.ask(asks)]

    def _verdict(self, reply: str | None, note: str) -> Verdict:
        if reply is None:
            return Verdict(None, note=note)
        grades = read_grades(reply, self._config.aspects)
        if grades is None:
            return Verdict(None, note=f"unparsable reply: {reply}")
        return Verdict(sum(grades.values()) / len(grades), {} if OVERALL in grades else grades, note=reply)


class _Comparer:
    def __init__(self, config: EndpointJudgeConfig, grader: _Grader) -> None:
        self._config, self._grader = config, grader
        self.identity = hash_json(["endpoint compare", COMPARE, grader.identity])

    def score(self, inputs: Sequence[JudgeInput], /) -> list[Verdict]:
        return self._grader.score(inputs)

    def compare(self, pairs: Sequence[ComparisonInput], /) -> list[Preference | None]:
        """Judge both orders: a preference needs both to agree; otherwise a tie, or None if one is unscored."""
        orders = [order for pair in pairs for order in (pair, ComparisonInput(pair.second, pair.first))]
        asks = [
            Ask(compare_prompt(order, reference=self._config.show_reference), order.first.prefix.images)
            for order in orders
        ]
        replies = self._grader.endpoint.ask(asks)
        preferences = [None if reply.text is None else read_better(reply.text) for reply in replies]
        return [_merge_orders(one, two) for one, two in zip(preferences[::2], preferences[1::2], strict=True)]


def _merge_orders(straight: Preference | None, swapped: Preference | None) -> Preference | None:
    if straight is None or swapped is None:
        return None
    return straight if straight == _SWAPPED[swapped] else "tie"
