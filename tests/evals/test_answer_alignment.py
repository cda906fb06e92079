"""Answers whose ids belong to other questions: matched by image and question, by order, or unscored with a note."""

from collections.abc import Iterator
from typing import Any

import pytest

from sightline.errors import InputError
from sightline.evals.answer_alignment import AlignmentCounts, align_answers, find_corrections
from sightline.evals.answer_reader import AnswerRow
from sightline.records.rows import Sample

#: (picture, question) by id, in the list's order; "Is there a cup?" is asked of both pictures.
LIST = {
    "1": ("COCO_val2014_000000000007.jpg", "Is there a cup?"),
    "2": ("COCO_val2014_000000000007.jpg", "Is there a dog?"),
    "3": ("COCO_val2014_000000000008.jpg", "Is there a cup?"),
    "4": ("COCO_val2014_000000000008.jpg", "Is there a car?"),
}


def samples() -> Iterator[Sample]:
    for key, (image, question) in LIST.items():
        yield Sample(id=key, images=(image,), prompt=question, task="yes-no", cluster=image, truth={"there": True})


def row(place: int, key: str | None, question: str, image: str = "", text: str | None = None) -> AnswerRow:
    return AnswerRow(
        f"a.jsonl line {place}", key, text or f"to {question}", question=question, image=image, name="answer"
    )


def matched(rows: list[AnswerRow]) -> tuple[dict[str, str], AlignmentCounts]:
    tally = AlignmentCounts()
    pairs = align_answers(samples, find_corrections(samples, lambda: rows).apply(rows, tally), tally)
    return {sample.id: answer.text for sample, answer in pairs if answer is not None}, tally


def test_a_row_that_asks_something_else_is_unscored_and_said() -> None:
    rows = [row(1, "1", "Is there a cup?"), row(2, "2", "Is there a car?"), row(3, "4", "Is there a car?")]
    found, tally = matched(rows)
    assert found == {"1": "to Is there a cup?", "4": "to Is there a car?"}
    assert tally.notes() == [
        "2 of 4 samples have no answer and are unscored",
        "1 answers are unscored: the list has another question under their ids"
        " (a.jsonl line 2 asks 'Is there a car?'); check that list and answers are of the same version",
    ]


def test_a_picture_and_a_question_find_the_sample_whatever_the_id() -> None:
    rows = [row(n, str(n), question, image) for n, (image, question) in enumerate(reversed(LIST.values()), 1)]
    rows = [one._replace(image=one.image[-6:-4].lstrip("0"), text=f"{one.image} {one.question}") for one in rows]
    found, tally = matched(rows)
    assert found == {key: f"{image} {question}" for key, (image, question) in LIST.items()}
    assert (tally.by_question, tally.other_question, tally.missing) == (4, 0, 0)


def test_a_question_that_a_picture_is_not_asked_is_no_match() -> None:
    rows = [row(1, "1", "Is there a dog?", "8"), row(2, "2", "Is there a dog?"), row(3, "3", "Is there a cup?", "8")]
    found, tally = matched(rows)
    assert sorted(found) == ["2", "3"] and tally.other_question == 1


def test_of_several_rows_with_one_id_the_one_that_asks_the_same_counts() -> None:
    rows = [row(1, "2", "Is there a car?", text="no"), row(2, "2", "Is there a dog?", text="yes"), row(3, "1", "")]
    found, tally = matched(rows)
    assert found["2"] == "yes" and (tally.other_question, tally.repeated) == (1, 0)


def test_ids_of_another_numbering_go_by_order_where_all_questions_follow_the_list() -> None:
    rows = [row(n, str(n), question) for n, (_, question) in enumerate(LIST.values())]  # from 0
    found, tally = matched(rows)
    assert found == {key: f"to {question}" for key, (_, question) in LIST.items()}
    assert "have ids of another numbering but ask the list's questions" in tally.notes()[0]


def test_rows_without_ids_in_another_order_are_found_by_picture() -> None:
    rows = [row(n, None, question, image[-6:-4].lstrip("0")) for n, (image, question) in enumerate(LIST.values())]
    found, tally = matched(rows[::-1])
    assert len(found) == 4 and found["4"] == "to Is there a car?" and tally.by_question == 4
    with pytest.raises(InputError, match="line 3: answers 'Is there a car\\?' where the list asks 'Is there a cup\\?'"):
        matched([one._replace(image="") for one in rows[::-1]])


def test_where_most_ask_something_else_no_chance_fit_counts() -> None:
    """One row of three asks what the list asks under its id, which a list of few questions makes likely."""
    rows = [row(1, "1", "Is there a cup?"), row(2, "2", "Is there a car?"), row(3, "4", "Is there a kite?")]
    with pytest.raises(InputError, match=r"no answer has the question that the list has under its id .*same version"):
        matched(rows)


def test_descriptions_are_told_apart_by_their_picture_alone() -> None:
    def described() -> Iterator[Sample]:
        yield Sample(id="7", images=("7.jpg",), prompt="Describe the image.", task="description", cluster="7")

    rows = [row(1, "7", "What do you see here?")]
    assert not find_corrections(described, lambda: rows).ids
    ((_, answer),) = align_answers(described, rows, AlignmentCounts())
    assert answer is not None


@pytest.mark.parametrize(("count", "warns"), [(30, True), (29, False)])
def test_answers_that_all_equal_the_truth_are_suspicious(count: int, warns: bool) -> None:
    def many() -> Iterator[Sample]:
        for number in range(count):
            yield Sample(id=str(number), prompt="?", cluster="", truth={"there": number % 2 == 0})

    def read(rows: list[AnswerRow]) -> list[Any]:
        tally = AlignmentCounts()
        list(align_answers(many, rows, tally))
        return [line for line in tally.notes() if line.startswith("warning: all")]

    rows = [row(n, str(n), "", text="No." if n % 2 else "yes") for n in range(count)]
    assert len(read(rows)) == warns
    assert not warns or "'answer' is the model's answer" in read(rows)[0]
    assert read([rows[0]._replace(text="Yes, there is."), *rows[1:]]) == []
