"""The records of Sightline: Sample, Pair, Answer, Score, Estimate. Frozen, closed, one JSON object a line.

How a file of them is read and written is `store`; who made it, and from what, is `manifest`.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Row(BaseModel):
    """A frozen record that rejects unknown keys, and numbers that are not finite, which JSON cannot say."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sample(Row):
    """An image (or several, or none), a prompt, and, where it exists, a reference answer.

    `images` are paths relative to the folder of the file that holds the row. `task` says what is asked (description,
    yes-no, count, ...); `cluster` names the unit of resampling, one for all questions on one image; `truth` is ground
    truth in the form its benchmark or judge understands.
    """

    id: str
    images: tuple[str, ...] = ()
    prompt: str
    reference: str | None = None
    task: str = ""
    cluster: str = ""
    truth: dict[str, Any] = Field(default_factory=dict)


class Pair(Row):
    """A preference: `chosen` over `rejected` for one prompt. `provenance` says who made it and how, per row."""

    id: str
    images: tuple[str, ...] = ()
    prompt: str
    chosen: str
    rejected: str
    builder: str
    cluster: str = ""
    provenance: dict[str, Any] = Field(default_factory=dict)


class Answer(Row):
    """What a model said to a sample. `finished` is False where the token limit cut it off."""

    sample_id: str
    cluster: str
    text: str
    tokens: int
    finished: bool


class Score(Row):
    """The measurements of one answer; None is unscored, never zero. `details` is for people and the report."""

    sample_id: str
    cluster: str
    values: dict[str, float | None]
    details: dict[str, Any] = Field(default_factory=dict)


class Estimate(Row):
    """A number with its uncertainty: `n` scored items, `unscored` items left out, 95 % interval."""

    value: float | None
    stderr: float | None
    ci95: tuple[float, float] | None
    n: int
    unscored: int = 0
