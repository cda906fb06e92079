"""The records of Sightline (Sample, Pair, Answer, Score, Estimate): frozen, closed, one JSON object a line.

`store` reads and writes files of them; `manifest` records their provenance.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

#: The placeholder for the row's next image in a prompt or an earlier turn.
IMAGE = "<image>"
Span = tuple[int, int]


def _name(value: object) -> object:
    """An integer id as text: tables turn ids into numbers, and 7 into 7.0 if the column has a missing value."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


#: An id; an integer is read as text.
Name = Annotated[str, BeforeValidator(_name)]


class Row(BaseModel):
    """A frozen record that rejects unknown keys and numbers that are not finite, which JSON cannot represent."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Turn(Row):
    """An earlier message of a conversation, or, before all others, the wishes of the provider or of the user.

    `data.turns` renders `system-info` and `user-info` for a model and defines which of them takes precedence.
    """

    role: Literal["system", "system-info", "user-info", "user", "assistant"]
    text: str


class Sample(Row):
    """A prompt about any number of images, with an optional reference answer.

    `images` are paths relative to the folder of the row's file. They are inserted, in order, at each `<image>` in
    `history` and `prompt`, or, if there is none, before the first user turn. `media` names the kind of each (such as
    picture, sound) for a model with several encoders; if empty, the model's first kind is used. `task` is the type of
    question (description, yes-no, count, ...); `cluster` names the resampling unit, shared by all questions about one
    image; `truth` is ground truth in the form that its benchmark or judge expects.
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
    """A preference for `chosen` over `rejected`, for a prompt as in `Sample`.

    `second_rejected` is a second rejected answer, for averaged DPO (arXiv 2407.02477, eq. 5). Spans are characters
    `[start, end)` that a correction changed, for dense weights (RLHF-V, arXiv 2312.00849). `provenance` records the
    origin of the pair.
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
    """A model's answer to a sample. `finished` is False if the token limit cut it off.

    `finished` and `tokens` are None in answers from other tools, whose tokenizer is unknown.
    """

    sample_id: str
    cluster: str
    text: str
    tokens: int | None = None
    finished: bool | None = None


class Score(Row):
    """The measurements of one answer; None is unscored, never zero. `details` are for readers and the report.

    `groups` names the parts of a benchmark (split, category) that the item belongs to, for metrics on a part.
    """

    sample_id: str
    cluster: str
    groups: tuple[str, ...] = ()
    values: dict[str, float | None]
    details: dict[str, Any] = Field(default_factory=dict)


class Grade(Row):
    """Grades of a question or an answer by a rater or an automatic grader: a number by criterion, higher is better.

    `answer_id` distinguishes several answers of a sample (`chosen` and `rejected` of a pair, the name of a run);
    `question_id` distinguishes its questions. A criterion that was not graded is None or missing.
    """

    sample_id: str
    question_id: str = ""
    answer_id: str = ""
    rater: str = ""
    scores: dict[str, float | None]


class Estimate(Row):
    """A value with its uncertainty: standard error, 95 % interval, `n` scored items and `unscored` excluded items."""

    value: float | None
    stderr: float | None
    ci95: tuple[float, float] | None
    n: int
    unscored: int = 0
