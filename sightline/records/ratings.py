"""What people say of answers: the item they were shown, and one rater's word on it.

Where these rows lie on disk is `data.labels`; what becomes of them is for `pairs.from_labels` and `evals.agreement`.
"""

from typing import Literal

from pydantic import Field

from sightline.records.rows import Row, Span, Turn

#: Of an item's two answers, in the item's own order and not in that of the screen.
Verdict = Literal["first", "second", "tie", "skip"]


class GivenAnswer(Row):
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
    first: GivenAnswer
    second: GivenAnswer


class Noted(Row):
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
    first: Noted = Noted()
    second: Noted = Noted()
    seconds: float | None = None
