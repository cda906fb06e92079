"""Pairs of labels: majorities, ties and splits by hand, corrections with their spans, and a folder that opens."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sightline.builders.from_labels import FromLabelsConfig, majority_marks, majority_verdict, pairs_from_labels
from sightline.data.labels import RaterFile
from sightline.data.preference_dataset import read_pairs
from sightline.errors import InputError
from sightline.records import AnswerAnnotation, LabelItem, RatedAnswer, Rating, append_rows

FIRST = "A red car and a tree."
SECOND = "A blue car and a dog."


def rated(verdicts: str) -> list[Rating]:
    names = {"f": "first", "s": "second", "t": "tie"}
    return [Rating.model_validate({"item": "i", "rater": f"r{n}", "verdict": names[v]}) for n, v in enumerate(verdicts)]


@pytest.mark.parametrize(
    ("verdicts", "most"),
    [("f", "first"), ("ffs", "first"), ("sst", "second"), ("fs", None), ("ft", None), ("ffsstt", None), ("ttf", "tie")],
)
def test_more_than_half_decides(verdicts: str, most: str | None) -> None:
    assert majority_verdict(rated(verdicts)) == most


def test_words_that_most_marked() -> None:
    noted = [
        AnswerAnnotation(marks=((2, 5),)),
        AnswerAnnotation(marks=((2, 9),)),
        AnswerAnnotation(marks=((2, 9),)),
        AnswerAnnotation(),
    ]
    assert majority_marks(FIRST, noted) == ((2, 5),)


@pytest.fixture
def labels(tmp_path: Path, make_image: Callable[..., Path]) -> Path:
    folder = tmp_path / "labels"
    make_image("labels/images/one.png")
    answers = {"first": RatedAnswer(id="chosen", text=FIRST), "second": RatedAnswer(id="rejected", text=SECOND)}
    for name in ("a", "b", "c", "d"):
        row = {
            "id": name,
            "sample_id": name,
            "images": ["images/one.png"],
            "prompt": "What is there?",
            "cluster": "one",
        }
        append_rows(folder / "items.jsonl", [LabelItem.model_validate({**row, **answers})])
    return folder


def add_rating(folder: Path, rater: str, item: str, verdict: str, **sides: AnswerAnnotation) -> None:
    row: dict[str, Any] = {"item": item, "rater": rater, "verdict": verdict, **sides}
    RaterFile.open(folder, rater).add(Rating.model_validate(row))


def ids(folder: Path) -> Sequence[str]:
    return [pair.id for pair in read_pairs(folder)]


def test_rankings_and_corrections(labels: Path, tmp_path: Path) -> None:
    mended = "A blue car and a tree."
    add_rating(
        labels,
        "ann",
        "a",
        "second",
        second=AnswerAnnotation(marks=((17, 20),), correction=mended, grades={"faithful": 2}),
    )
    add_rating(labels, "bo", "a", "second", second=AnswerAnnotation(marks=((17, 20),), grades={"faithful": 4}))
    add_rating(labels, "cy", "a", "first")
    add_rating(labels, "ann", "b", "tie")
    add_rating(labels, "ann", "c", "first")
    add_rating(labels, "bo", "c", "second")
    add_rating(labels, "ann", "d", "skip")
    manifest = pairs_from_labels(labels, tmp_path / "pairs", FromLabelsConfig())
    assert manifest.dropped == {
        "most raters see a tie": 1,
        "no choice has more than half of the raters": 1,
        "nobody rated it": 1,
    }
    assert manifest.counts == {"items": 4, "raters": 3, "pairs": 2, "rankings": 1, "corrections": 1}
    ranking, correction = read_pairs(tmp_path / "pairs")
    assert (ranking.id, ranking.chosen, ranking.rejected) == ("a/labeled", SECOND, FIRST)
    assert ranking.provenance == {
        "by": "ranking",
        "raters": ["ann", "bo", "cy"],
        "votes": {"first": 1, "second": 2},
        "chosen_from": "rejected",
        "chosen_marks": [[17, 20]],
        "chosen_grades": {"faithful": 3.0},
        "rejected_from": "chosen",
        "rejected_marks": [],
        "rejected_grades": {},
    }
    assert (correction.id, correction.chosen, correction.rejected) == ("a/mended-000", mended, SECOND)
    assert [mended[start:end] for start, end in correction.chosen_spans] == ["tree"]
    assert [SECOND[start:end] for start, end in correction.rejected_spans] == ["dog"]
    assert correction.provenance["raters"] == ["ann"]
    assert (tmp_path / "pairs" / "data").is_dir()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"make": "rankings"}, ["a/labeled"]),
        ({"make": "corrections"}, ["a/mended-000", "a/mended-001", "b/mended-000"]),
        ({"raters": 2}, ["a/labeled", "a/mended-000", "a/mended-001", "b/mended-000"]),
    ],
)
def test_what_is_asked_for(labels: Path, tmp_path: Path, settings: dict[str, Any], expected: list[str]) -> None:
    for rater, text in (("ann", "A car."), ("bo", "A tree."), ("cy", "A car.")):
        add_rating(labels, rater, "a", "first", second=AnswerAnnotation(correction=text))
    add_rating(labels, "ann", "b", "tie", first=AnswerAnnotation(correction="A car."))
    pairs_from_labels(labels, tmp_path / "pairs", FromLabelsConfig.model_validate(settings))
    assert ids(tmp_path / "pairs") == expected


def test_nothing_left_is_said_and_claims_nothing(labels: Path, tmp_path: Path) -> None:
    add_rating(labels, "ann", "a", "tie")
    with pytest.raises(InputError, match=r"no pair is left .*; rate more items"):
        pairs_from_labels(labels, tmp_path / "pairs", FromLabelsConfig())
    assert not (tmp_path / "pairs").exists()
    add_rating(labels, "ann", "a", "first")
    assert pairs_from_labels(labels, tmp_path / "pairs", FromLabelsConfig()).counts["pairs"] == 1
