"""Rows of human feedback: items to label, ratings, and the log of a served model with its feedback.

`data.labels` and `data.request_log` store them; `builders.from_labels`, `builders.feedback`, `evals.agreement` and
`apps.monitor` use them.
"""

from typing import Literal

from pydantic import ConfigDict, Field, field_validator

from sightline.records.rows import Row, Span, Turn

#: The preferred answer, by the item's order and not by the order on the screen.
Verdict = Literal["first", "second", "tie", "skip"]


class RatedAnswer(Row):
    """One answer of an item; `id` identifies its source and is hidden from raters."""

    id: str
    text: str


class LabelItem(Row):
    """A prompt with two answers to compare; images and conversation are as in `Sample`."""

    id: str
    sample_id: str
    images: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()
    prompt: str
    cluster: str = ""
    first: RatedAnswer
    second: RatedAnswer


class AnswerAnnotation(Row):
    """A rater's annotation of one answer.

    `marks` are characters `[start, end)` that the picture contradicts, `correction` is the corrected answer, `grades`
    are integers by criterion.
    """

    marks: tuple[Span, ...] = ()
    correction: str | None = None
    grades: dict[str, int] = Field(default_factory=dict)


class Rating(Row):
    """One rater's verdict on one item; of several by the same rater on the same item, the last counts.

    `swapped` is True if the second answer was shown first; `seconds` is the time that the item was shown.
    """

    item: str
    rater: str
    verdict: Verdict
    swapped: bool = False
    first: AnswerAnnotation = AnswerAnnotation()
    second: AnswerAnnotation = AnswerAnnotation()
    seconds: float | None = None


#: Hash buckets in which words are counted: enough to detect a change of topic.
BUCKETS = 256


class LoggedPicture(Row):
    """Statistics of a picture sent to a served model: SHA-256 of its bytes, size in pixels, and appearance in [0, 1].

    `brightness` and `contrast` are the mean and standard deviation of luma, `saturation` the mean of HSV saturation,
    `detail` the mean absolute luma difference of neighboring pixels.
    """

    sha256: str
    width: int
    height: int
    brightness: float
    contrast: float
    saturation: float
    detail: float


class TextStats(Row):
    """Statistics of a text that need not be stored: the number of words, in total and by hash bucket."""

    words: int
    buckets: dict[int, int] = Field(default_factory=dict)


class LoggedRequest(Row):
    """One call of a served model. `prompt`, `history` and `answer` are None in a redacted log.

    `prompt_stats` and `answer_stats` (keys `asked` and `said` in the file) measure the texts, redacted or not. `yes` is
    None unless the answer begins with yes or no. `kept` is True if the log keeps the pictures' bytes. `note` is the
    problem if `status` is not 200 or the answer broke off. `time` is UTC; `seconds` runs from the call to the last byte
    of its answer.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    id: str
    time: str
    model: str
    images: tuple[LoggedPicture, ...] = ()
    history: tuple[Turn, ...] | None = ()
    prompt: str | None = None
    answer: str | None = None
    prompt_stats: TextStats = Field(default=TextStats(words=0), validation_alias="asked", serialization_alias="asked")
    answer_stats: TextStats | None = Field(default=None, validation_alias="said", serialization_alias="said")
    yes: bool | None = None
    refused: bool | None = None
    finished: bool | None = None
    tokens: int | None = None
    status: int = 200
    seconds: float = 0.0
    kept: bool = False
    note: str = ""


class Feedback(Row):
    """A thumb for a logged answer, its correction, or both; `id` is that of the call."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$", description="value of the response header x-sightline-id")
    thumb: Literal["up", "down"] | None = None
    correction: str | None = Field(default=None, max_length=20_000)
    time: str = ""

    @field_validator("correction")
    @classmethod
    def _not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("a correction must not be blank; omit it if there is none")
        return value
