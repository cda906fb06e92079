"""Twelve anchor answers of known worth, graded by a judge to detect drift between two days or two judges.

The scenes are drawn and the answers are Sightline's own, so that every protocol applies, with or without the image. A
grade is the share of a protocol's best, in [0, 1]; anchors enter no metric of a benchmark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from PIL import Image, ImageDraw

from sightline.endpoint import Endpoint
from sightline.evals.judging.judge_client import EvalJudgeConfig, JudgeItem, grade_items
from sightline.evals.judging.protocols import Case, Grading
from sightline.records import append_rows, read_rows
from sightline.records.rows import Row

ANCHORS = "anchors.jsonl"
_SIZE, _PAPER = (192, 128), (255, 255, 255)
_COLORS = {
    "red": (204, 40, 40),
    "blue": (40, 80, 200),
    "green": (40, 140, 70),
    "yellow": (240, 200, 40),
    "black": (0, 0, 0),
}

#: Scene -> its description, and (shape, color, left, top) of its shapes, each 32 pixels wide.
_SCENES: dict[str, tuple[str, tuple[tuple[str, str, int, int], ...]]] = {
    "row": ("three red circles in a row", tuple(("circle", "red", left, 48) for left in (20, 80, 140))),
    "side": ("a blue square, a yellow triangle", (("square", "blue", 36, 48), ("triangle", "yellow", 124, 48))),
    "tower": ("a green triangle, a black square", (("triangle", "green", 80, 20), ("square", "black", 80, 76))),
    "three": (
        "two yellow squares, a red circle",
        (("square", "yellow", 20, 48), ("square", "yellow", 80, 48), ("circle", "red", 140, 48)),
    ),
}


@dataclass(frozen=True)
class JudgeAnchor:
    """An answer and its worth in [0, 1]."""

    scene: str
    question: str
    reference: str
    answer: str
    worth: float


_MANY = "There are three circles."
_SIDE = "A blue square is on the left and a yellow triangle on the right, on a white ground."
ITEMS: tuple[JudgeAnchor, ...] = (
    JudgeAnchor("row", "How many circles are there?", _MANY, "There are three of them.", 1.0),
    JudgeAnchor("row", "How many circles are there?", _MANY, "There are two circles.", 0.0),
    JudgeAnchor("row", "What color are the circles?", "All of them are red.", "They are red.", 1.0),
    JudgeAnchor("row", "What color are the circles?", "All of them are red.", "Two are red and one is blue.", 0.2),
    JudgeAnchor("side", "What is on the left?", "A blue square.", "On the left there is a blue square.", 1.0),
    JudgeAnchor("side", "What is on the left?", "A blue square.", "On the left there is a red circle.", 0.0),
    JudgeAnchor(
        "side", "Describe the picture.", _SIDE, "On white, a blue square stands left of a yellow triangle.", 1.0
    ),
    JudgeAnchor(
        "side", "Describe the picture.", _SIDE, "A blue square stands left of a yellow triangle, above a dog.", 0.3
    ),
    JudgeAnchor("side", "Describe the picture.", _SIDE, "There are two shapes in it.", 0.5),
    JudgeAnchor("tower", "Is the triangle above the square?", "Yes, it is.", "Yes, it is above the black square.", 1.0),
    JudgeAnchor("tower", "Is the triangle above the square?", "Yes, it is.", "No, it is below the square.", 0.0),
    JudgeAnchor(
        "three",
        "How many shapes of which kind are there?",
        "Two squares and a circle.",
        "Two squares, two circles.",
        0.4,
    ),
)


class AnchorGrades(Row):
    """A judge's grades of the anchors on one day.

    `bias` is the mean of grade - worth, `error` the mean of its absolute value. `order` is the share of correctly
    ordered pairs among anchors that differ in worth; a tie counts half. None where nothing was graded.
    """

    judge: str
    model: str
    protocol: str
    when: str
    grades: tuple[float | None, ...]
    bias: float | None
    error: float | None
    order: float | None


def grade_anchors(config: EvalJudgeConfig, own: Grading, folder: Path, when: str) -> AnchorGrades:
    """Have the judge grade every anchor, without the cache, and append the grades to `folder / ANCHORS`.

    `when` is today's date; images are drawn into `folder` if the protocol shows them.

    Raises:
        InputError: the server fails.
    """
    grading, identity = config.grading(own), config.identity(own)
    items = [
        JudgeItem(str(number), anchor.answer, _case(anchor, grading, folder)) for number, anchor in enumerate(ITEMS)
    ]
    verdicts = grade_items(items, grading, identity, Endpoint(config.server.model_copy(update={"cache": False})))
    readings = [None if verdict.reply is None else grading.read(verdict.reply) for verdict in verdicts]
    grades = tuple(None if reading is None else grading.worth(reading) for reading in readings)
    result = summarize(grades, judge=identity, model=config.server.model, protocol=own.name, when=when)
    append_rows(folder / ANCHORS, [result])
    return result


def summarize(grades: Sequence[float | None], *, judge: str, model: str, protocol: str, when: str) -> AnchorGrades:
    """The `AnchorGrades` for one grade an anchor."""
    known = [(grade, anchor.worth) for grade, anchor in zip(grades, ITEMS, strict=True) if grade is not None]
    misses = [grade - worth for grade, worth in known]
    ordered = [_agrees(one, other) for one, other in combinations(known, 2) if one[1] != other[1]]
    return AnchorGrades(
        judge=judge,
        model=model,
        protocol=protocol,
        when=when,
        grades=tuple(grades),
        bias=_mean(misses),
        error=_mean([abs(miss) for miss in misses]),
        order=_mean(ordered),
    )


def read_anchors(path: Path) -> list[AnchorGrades]:
    """Earlier grades of the anchors, oldest first; empty if there is no file."""
    return list(read_rows(path, AnchorGrades, allow_torn_tail=True)) if path.exists() else []


def drift(before: AnchorGrades, after: AnchorGrades) -> tuple[float, float] | None:
    """(mean, largest absolute) change over the anchors that both graded; None if there are none."""
    pairs = zip(before.grades, after.grades, strict=True)
    changes = [new - old for old, new in pairs if old is not None and new is not None]
    return (sum(changes) / len(changes), max(map(abs, changes))) if changes else None


def drift_text(before: AnchorGrades | None, after: AnchorGrades) -> str:
    """A summary of one or two lines."""
    graded = sum(grade is not None for grade in after.grades)
    line = (
        f"anchors: {graded} of {len(ITEMS)} graded by {after.model}; off by {_format(after.bias)} on average,"
        f" {_format(after.error)} without sign; {_format(after.order)} of the pairs in order"
    )
    moved = None if before is None else drift(before, after)
    if before is None or moved is None:
        return line
    since = f"since {before.when} by {before.model}" + ("" if before.judge == after.judge else ", another judge")
    return f"{line}\ndrift {since}: {moved[0]:+.3f} on average, {moved[1]:.3f} at most"


def draw(scene: str, path: Path) -> None:
    """Draw a scene as PNG."""
    picture = Image.new("RGB", _SIZE, _PAPER)
    pen = ImageDraw.Draw(picture)
    for shape, color, left, top in _SCENES[scene][1]:
        box, fill = (left, top, left + 32, top + 32), _COLORS[color]
        if shape == "circle":
            pen.ellipse(box, fill=fill)
        elif shape == "square":
            pen.rectangle(box, fill=fill)
        else:
            pen.polygon([(left, top + 32), (left + 32, top + 32), (left + 16, top)], fill=fill)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _case(anchor: JudgeAnchor, grading: Grading, folder: Path) -> Case:
    images: tuple[Path, ...] = ()
    if grading.shows_image:
        images = (folder / "anchors" / f"{anchor.scene}.png",)
        draw(anchor.scene, images[0])
    return Case(
        anchor.question, anchor.answer, reference=anchor.reference, context=_SCENES[anchor.scene][0], images=images
    )


def _agrees(one: tuple[float, float], other: tuple[float, float]) -> float:
    difference = (one[0] - other[0]) * (one[1] - other[1])
    return 0.5 if difference == 0 else float(difference > 0)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
