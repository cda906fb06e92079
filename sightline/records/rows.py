"""The records of Sightline: Sample, Pair, Answer, Score, Estimate. Frozen, closed, one JSON object a line.

How a file of them is read and written is `store`; who made it, and from what, is `manifest`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

#: Where a prompt or an earlier turn says this, the row's next image stands.
IMAGE = "<image>"
Span = tuple[int, int]


def _name(value: object) -> object:
    """A whole number as text: tables turn ids into numbers, and 7 into 7.0 where a value of the column is missing."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


#: An id. Rows of others may give a whole number, which is read as text.
Name = Annotated[str, BeforeValidator(_name)]


class Row(BaseModel):
    """A frozen record that rejects unknown keys, and numbers that are not finite, which JSON cannot say."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Turn(Row):
    """An earlier message of a conversation; or, before all others, what the provider or the user wants of answers.

    How `system-info` and `user-info` are told to a model, and which of them wins, is `data.turns`.
    """

    role: Literal["system", "system-info", "user-info", "user", "assistant"]
    text: str


class Sample(Row):
    """An image (or several, or none), a prompt, and, where it exists, a reference answer.

    `images` are paths relative to the folder of the file that holds the row. They stand, in order, where `history` and
    `prompt` say `<image>`, or, where neither does, before the first user turn. `media` names what each of them is (such
    as picture, sound) for a model composed of several kinds; empty is what the model takes first. `task` says what is
    asked (description, yes-no, count, ...); `cluster` names the unit of resampling, one for all questions on one image;
    `truth` is ground truth in the form its benchmark or judge understands.
    """

    id: Name
    images: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()
    prompt: str
    reference: str | None = None
    task: str = ""
    cluster: Name = ""
    truth: dict[str, Any] = Field(default_factory=dict)


class Pair(Row):
    """A preference: `chosen` over `rejected` for one prompt, which is as in `Sample`.

    `second_rejected` is a second worse answer, for averaged DPO (arXiv 2407.02477, eq. 5). Spans are the characters
    `[start, end)` in which the answers differ by a correction, for dense weights (RLHF-V, arXiv 2312.00849).
    `provenance` says who made the pair and how.
    """

    id: Name
    images: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()
    prompt: str
    chosen: str
    rejected: str
    second_rejected: str | None = None
    chosen_spans: tuple[Span, ...] = ()
    rejected_spans: tuple[Span, ...] = ()
    builder: str
    cluster: Name = ""
    provenance: dict[str, Any] = Field(default_factory=dict)


class Answer(Row):
    """What a model said to a sample. `finished` is False where the token limit cut it off.

    Both it and `tokens` are None in answers that others wrote down, whose tokenizer is not known.
    """

    sample_id: str
    cluster: str
    text: str
    tokens: int | None = None
    finished: bool | None = None


class Score(Row):
    """The measurements of one answer; None is unscored, never zero. `details` is for people and the report.

    `groups` names the parts of a benchmark (split, category) that the item belongs to, for metrics over a part.
    """

    sample_id: str
    cluster: str
    groups: tuple[str, ...] = ()
    values: dict[str, float | None]
    details: dict[str, Any] = Field(default_factory=dict)


class Grade(Row):
    """What a rater, or a program in his place, gave a question or an answer: a number by criterion, higher is better.

    `sample_id` names the sample. `answer_id` tells its answers apart where it has several (`chosen` and `rejected` of a
    pair, the name of a run); `question_id` its questions. A criterion that was left open is None or missing.
    """

    sample_id: str
    question_id: str = ""
    answer_id: str = ""
    rater: str = ""
    scores: dict[str, float | None]


class Estimate(Row):
    """A number with its uncertainty: `n` scored items, `unscored` items left out, 95 % interval."""

    value: float | None
    stderr: float | None
    ci95: tuple[float, float] | None
    n: int
    unscored: int = 0
