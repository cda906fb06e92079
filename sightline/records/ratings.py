"""What people say of answers: the item they were shown, and one rater's word on it.

Where these rows lie on disk is `data.labels`; what becomes of them is for `builders.from_labels` and `evals.agreement`.
"""

from typing import Literal

from pydantic import ConfigDict, Field, field_validator

from sightline.records.rows import Row, Span, Turn

#: Of an item's two answers, in the item's own order and not in that of the screen.
Verdict = Literal["first", "second", "tie", "skip"]


class RatedAnswer(Row):
    """One of an item's answers; `id` says whose it is or which, and is not shown to raters."""

    id: str
    text: str


class LabelItem(Row):
    """A prompt with two answers that people compare; images and conversation are as in `Sample`."""

    id: str
    sample_id: str
    images: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()
    prompt: str
    cluster: str = ""
    first: RatedAnswer
    second: RatedAnswer


class AnswerAnnotation(Row):
    """What a rater noted on one answer: characters `[start, end)` that are not in the picture, the answer put right,
    and whole grades by criterion.
    """

    marks: tuple[Span, ...] = ()
    correction: str | None = None
    grades: dict[str, int] = Field(default_factory=dict)


class Rating(Row):
    """One rater's word on one item; of several by one rater on one item, the last counts.

    `swapped` says that the item's second answer stood first on the screen, `seconds` how long the item was there.
    """

    item: str
    rater: str
    verdict: Verdict
    swapped: bool = False
    first: AnswerAnnotation = AnswerAnnotation()
    second: AnswerAnnotation = AnswerAnnotation()
    seconds: float | None = None


#: Words are counted in so many buckets by their hash: enough to see that people talk of something else.
BUCKETS = 256


class LoggedPicture(Row):
    """A picture that was sent: `sha256` of its bytes, its size in pixels, and numbers in [0, 1] of how it looks.

    `brightness` and `contrast` are mean and standard deviation of luma, `saturation` is the mean of HSV's, `detail` the
    mean absolute difference of neighbors' luma.
    """

    sha256: str
    width: int
    height: int
    brightness: float
    contrast: float
    saturation: float
    detail: float


class TextStats(Row):
    """What is known of a text that is not kept: how many words, and how many of them fall into each bucket."""

    words: int
    buckets: dict[int, int] = Field(default_factory=dict)


class LoggedRequest(Row):
    """One call of a served model. `prompt`, `history` and `answer` are None in a redacted log.

    `prompt_stats` and `answer_stats` (keys `asked` and `said` in the file) measure the texts, redacted or not. `yes` is
    None unless the answer begins with yes or no. `kept` is True if the pictures' bytes are stored beside the log. `note`
    is the problem if `status` is not 200 or the answer broke off. `time` is UTC; `seconds` runs from the call to the
    last byte of its answer.
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
    """A thumb on a logged answer, or what it should have said, or both; `id` is that of the call."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$", description="what the answer's header x-sightline-id said")
    thumb: Literal["up", "down"] | None = None
    correction: str | None = Field(default=None, max_length=20_000)
    time: str = ""

    @field_validator("correction")
    @classmethod
    def _says_something(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("a correction must say something; leave it out where there is none")
        return value
