"""Kinds of findings with their severity, and the records `CheckFinding`, `CheckLine` (of the table) and `Report`.

To add a row check, add a line to `CHECKS`; measures of the whole dataset (`shortcuts`, `language_prior`) create their
own lines.
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from sightline.config import Config
from sightline.records import Estimate, Row

Verdict = Literal["ok", "look", "bad"]
NEVER = 2.0  # above any share
GIVE_AWAY, PRIOR = "give-away: ", "language prior: "  # prefixes of the names of measures


@dataclass(frozen=True)
class Check:
    """A kind of finding. A share of rows above `look` or `bad` gets that verdict; --fix drops rows if `removes`."""

    title: str
    look: float = 0.0
    bad: float = 0.0
    removes: bool = True

    def verdict(self, share: float) -> Verdict:
        """Return the verdict for a share of all rows."""
        return "bad" if share > self.bad else "look" if share > self.look else "ok"


#: Table order among equal verdicts.
CHECKS: dict[str, Check] = {
    "row": Check("rows that cannot be read"),
    "id": Check("ids that are empty or occur twice"),
    "image-path": Check("image missing or outside the folder"),
    "image-remote": Check("image is an address"),
    "image-damaged": Check("image damaged or no image"),
    "image-huge": Check("image too large to open"),
    "image-tiny": Check("image of a few pixels"),
    "placeholders": Check("<image> does not match the images"),
    "empty": Check("empty prompt or answer"),
    "equal": Check("chosen equals rejected"),
    "equal-normalized": Check("chosen equals rejected, normalized", bad=0.01),
    "too-long": Check("too long for the model", bad=0.01),
    "refused": Check("refused by the model's encoder"),
    "overlap-image": Check("picture is in the benchmark"),
    "overlap-alike": Check("picture looks like one in the benchmark", bad=0.001),
    "overlap-coco": Check("COCO id is in the benchmark"),
    "overlap-question": Check("question is in the benchmark", bad=NEVER, removes=False),
    "contradiction": Check("another row says the opposite", bad=0.01),
    "duplicate": Check("row occurs before", bad=0.01),
    "near-duplicate": Check("nearly the same row before", bad=0.05, removes=False),
    "image-copy": Check("same picture under another name", bad=NEVER, removes=False),
    "image-alike": Check("picture much like another", look=0.01, bad=NEVER, removes=False),
    "text-repeated": Check("same texts with another picture", look=0.05, bad=NEVER, removes=False),
    "image-blank": Check("image of one color", bad=NEVER, removes=False),
    "image-linked": Check("image behind a link out of the folder (followed)", look=NEVER, bad=NEVER, removes=False),
    "image-rotated": Check("image turned by EXIF (handled)", look=NEVER, bad=NEVER, removes=False),
    "image-cmyk": Check("image in CMYK (handled)", look=NEVER, bad=NEVER, removes=False),
    "image-animated": Check("animated image (first frame)", look=NEVER, bad=NEVER, removes=False),
}
#: Checks that need a model, or benchmarks.
OF_MODEL, OF_BENCHMARKS = (
    ("too-long", "refused"),
    ("overlap-image", "overlap-alike", "overlap-coco", "overlap-question"),
)


class CheckFinding(Row):
    """A problem of one row. `row` counts from 1; `of` names the benchmark of an overlap."""

    row: int
    id: str
    where: str
    check: str
    of: str = ""
    reason: str
    removes: bool


class RemovedRow(Row):
    """A row left out of a cleaned copy, with the first reason."""

    row: int
    id: str
    check: str
    reason: str


class CheckLine(Row):
    """A line of the table: a count of rows, or a measure of the dataset (`value`), both out of `n`.

    `within` is the share of pairs that a shortcut orders correctly, ties one half; `examples` are ids of the first
    rows.
    """

    check: str
    of: str = ""
    title: str
    verdict: Verdict
    rows: int | None = None
    share: float | None = None
    value: Estimate | None = None
    within: Estimate | None = None
    n: int
    examples: tuple[str, ...] = ()


class Report(Row):
    """All results of a check: `rows` read, `readable` ones are pairs, `removable` ones would leave a cleaned copy.

    `skipped` gives the reason for each skipped check; `distinct_images` counts the images that open by their bytes.
    """

    rows: int
    readable: int
    images: int
    distinct_images: int
    removable: int
    lines: tuple[CheckLine, ...]
    skipped: dict[str, str] = Field(default_factory=dict)
    numbers: dict[str, float] = Field(default_factory=dict)

    @property
    def is_bad(self) -> bool:
        """Whether any line is bad."""
        return any(line.verdict == "bad" for line in self.lines)


class CheckConfig(Config):
    """Settings of `sightline check`; the defaults are ours, chosen as docs/guides/check.md says."""

    allow_remote: bool = Field(default=False, description="accept a URL in place of an image with a note")
    min_side: int = Field(default=10, ge=1, description="pixels; an image with a shorter side is unusable")
    max_pixels: int = Field(default=89_478_485, gt=0, description="a larger image is not opened; Pillow's own limit")
    image_distance: int = Field(
        default=4, ge=0, le=7, description="bits of 64 by which pHashes of similar images differ"
    )
    text_distance: int = Field(default=3, ge=0, le=7, description="bits of 64 of the texts' sketches: 3 is Jaccard 0.9")
    sample: int = Field(default=20_000, ge=0, description="random pairs on which shortcuts are measured")
    prior_sample: int = Field(default=500, ge=0, description="random pairs that a model scores by text alone")
    batch_size: int = Field(default=8, gt=0, description="pairs per scoring batch")
    folds: int = Field(default=5, ge=2, description="folds of the cross-validation, split by cluster")
    resamples: int = Field(default=500, ge=100, description="cluster bootstrap resamples behind each interval")
    look: float = Field(default=0.6, gt=0.5, lt=1, description="AUC or share above which a shortcut deserves a look")
    bad: float = Field(default=0.75, gt=0.5, lt=1, description="AUC or share above which it is bad")

    @model_validator(mode="after")
    def _ordered(self) -> "CheckConfig":
        if self.look > self.bad:
            raise ValueError(f"look {self.look} must not exceed bad {self.bad}")
        return self
