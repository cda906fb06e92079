"""Label directories: rater names, torn files, the latest rating, and grades as rows."""

from pathlib import Path

import pytest

from sightline.data.labels import RaterFile, rater_name, read_grades, read_items, read_ratings
from sightline.errors import InputError
from sightline.records import AnswerAnnotation, LabelItem, RatedAnswer, Rating, append_rows


def item(name: str) -> LabelItem:
    first, second = (RatedAnswer(id=f"{name}#{side}", text=f"The {side} of {name}.") for side in ("first", "second"))
    return LabelItem(
        id=name, sample_id=f"sample of {name}", prompt="What is there?", cluster="c", first=first, second=second
    )


def test_a_torn_line_is_set_aside_and_the_file_goes_on(tmp_path: Path) -> None:
    file = RaterFile.open(tmp_path, "Ann")
    file.add(Rating(item="a", rater="ann", verdict="first"))
    file.add(Rating(item="b", rater="ann", verdict="tie"))
    whole = file.path.read_bytes()
    torn = b'{"item":"c","rater":"ann","ver'
    with file.path.open("ab") as opened:
        opened.write(torn)
    again = RaterFile.open(tmp_path, "ANN ")
    assert again.torn is not None
    assert again.torn.read_bytes() == torn + b"\n"
    assert again.path.read_bytes() == whole
    assert {name: rating.verdict for name, rating in again.latest.items()} == {"a": "first", "b": "tie"}
    again.add(Rating(item="c", rater="ann", verdict="second"))
    assert RaterFile.open(tmp_path, "ann").torn is None
    assert [rating.verdict for rating in read_ratings(tmp_path)["ann"].values()] == ["first", "tie", "second"]


def test_of_two_rows_on_an_item_the_last_counts(tmp_path: Path) -> None:
    file = RaterFile.open(tmp_path, "bo")
    file.add(Rating(item="a", rater="bo", verdict="first"))
    file.add(Rating(item="a", rater="bo", verdict="skip"))
    assert read_ratings(tmp_path)["bo"]["a"].verdict == "skip"
    assert len(file.path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "name"),
    [("Ann", "ann"), ("  José  García ", "josé garcía"), ("r.2-b", "r.2-b"), ("R2.", "r2")],
)
def test_names(text: str, name: str) -> None:
    assert rater_name(text) == name


@pytest.mark.parametrize(
    "text", ["", " ", "../etc/passwd", "a/b", "a\\b", ".hidden", "a\0b", "x" * 41, "<b>", "con", "nul.x"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a valid name"):
        rater_name(text)


def test_grades_are_a_row_an_answer_and_rater(tmp_path: Path) -> None:
    append_rows(tmp_path / "items.jsonl", [item("a"), item("b")])
    ann, bo = RaterFile.open(tmp_path, "ann"), RaterFile.open(tmp_path, "bo")
    ann.add(Rating(item="b", rater="ann", verdict="first", first=AnswerAnnotation(grades={"faithful": 5, "clear": 2})))
    bo.add(Rating(item="b", rater="bo", verdict="tie", second=AnswerAnnotation(grades={"faithful": 1})))
    bo.add(Rating(item="a", rater="bo", verdict="tie"))
    assert [(grade.sample_id, grade.answer_id, grade.rater, grade.scores) for grade in read_grades(tmp_path)] == [
        ("sample of b", "b#first", "ann", {"faithful": 5.0, "clear": 2.0}),
        ("sample of b", "b#second", "bo", {"faithful": 1.0}),
    ]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no items\.jsonl; create it with"):
        read_items(tmp_path)
    with pytest.raises(InputError, match="has no ratings under raters/"):
        read_ratings(tmp_path)
    append_rows(tmp_path / "items.jsonl", [item("a"), item("a")])
    with pytest.raises(InputError, match="line 2: id 'a' is empty or occurs twice"):
        read_items(tmp_path)
