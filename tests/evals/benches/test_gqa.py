"""GQA: comparison of strings, question types, the balanced questions, and consistency by hand."""

from pathlib import Path
from typing import Any

import pytest

from sightline.evals.benches.gqa import convert_answer
from tests.evals.benches.official_files import score, values, write_json


def question(image: str, answer: str, structural: str, semantic: str, **more: Any) -> dict[str, Any]:
    types = {"structural": structural, "semantic": semantic, "detailed": "x"}
    return {"imageId": image, "question": "What?", "answer": answer, "isBalanced": True, "types": types, **more}


QUESTIONS = {
    "q1": question("n1", "yes", "verify", "attr"),
    "q2": question("n1", "left", "choose", "rel"),
    "q3": question("n2", "table", "query", "obj"),
    "q4": question("n3", "blue", "query", "attr"),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_json(tmp_path / "data/testdev_balanced_questions.json", QUESTIONS)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Yes.", "yes"), ("yes...", "yes"), (" yes", " yes"), ("yes. ", "yes. "), ("Yes!", "yes!"), ("U.S.", "u.s")],
)
def test_an_answer_loses_its_last_full_stops_and_its_case(text: str, expected: str) -> None:
    assert convert_answer(text) == expected


def test_shares_by_hand(data: Path) -> None:
    answers = {"q1": "Yes.", "q2": "right", "q3": "the table", "q4": "blue"}
    found = values(score("gqa", data, [{"question_id": key, "text": text} for key, text in answers.items()]))
    assert (found["accuracy"], found["binary"], found["open"]) == (2 / 4, 1 / 2, 1 / 2)
    assert found["accuracy_strict"] == 1 / 4  # "Yes." is no "yes" to the owners' script by itself
    by_type = {name: found[name] for name in found if name.startswith(("structural_", "semantic_"))}
    assert by_type == {
        "structural_choose": 0.0,
        "structural_query": 0.5,
        "structural_verify": 1.0,
        "semantic_attribute": 1.0,
        "semantic_object": 0.0,
        "semantic_relation": 0.0,
    }


def test_the_owners_layout_of_predictions(data: Path, tmp_path: Path) -> None:
    rows = [{"questionId": key, "prediction": row["answer"]} for key, row in QUESTIONS.items()]
    found = values(score("gqa", data, write_json(tmp_path / "p.json", rows)))
    assert found["accuracy"] == found["accuracy_strict"] == 1.0


def test_the_owners_layout_is_compared_as_written(data: Path, tmp_path: Path) -> None:
    """As in eval.py: "Yes" and "left." are wrong, and right after LLaVA's conversion."""
    answers = {"q1": "Yes", "q2": "left.", "q3": "table", "q4": "red"}
    owners = write_json(tmp_path / "p.json", [{"questionId": key, "prediction": text} for key, text in answers.items()])
    result = score("gqa", data, owners)
    found = values(result)
    assert [found[name] for name in ("accuracy", "accuracy_strict", "accuracy_converted")] == [1 / 4, 1 / 4, 3 / 4]
    assert (found["binary"], found["open"], found["structural_verify"]) == (0.0, 1 / 2, 0.0)
    assert result.notes == (
        "the answers are in the layout of GQA's eval.py and compared as written, as it does; accuracy_converted is"
        " after LLaVA's conversion",
    )
    others = values(score("gqa", data, [{"question_id": key, "text": text} for key, text in answers.items()]))
    assert [others[name] for name in ("accuracy", "accuracy_strict", "accuracy_converted")] == [3 / 4, 1 / 4, 3 / 4]


def test_consistency_in_the_owners_layout_is_as_written(tmp_path: Path) -> None:
    listed = {
        "q1": question("n1", "yes", "verify", "attr", entailed=["q2"]),
        "q2": question("n1", "no", "verify", "obj", entailed=[]),
    }
    write_json(tmp_path / "data/val_all_questions.json", listed)
    rows = [{"questionId": "q1", "prediction": "yes"}, {"questionId": "q2", "prediction": "No"}]
    result = score("gqa", tmp_path / "data", write_json(tmp_path / "p.json", rows), split="val_all")
    assert values(result)["consistency"] == 0.0


def test_consistency_is_over_right_answers_and_what_they_entail(tmp_path: Path) -> None:
    """q1 and q2 are right and entail something: half of it and all of it are right, so (0.5 + 1) / 2. q3 is wrong."""
    listed = {
        "q1": question("n1", "yes", "verify", "attr", entailed=["q1", "q2", "q5"]),
        "q2": question("n1", "left", "query", "rel", entailed=["q1"]),
        "q3": question("n2", "table", "query", "obj", entailed=["q1"]),
        "q4": question("n3", "blue", "query", "attr", entailed=["q4"]),  # itself does not count
        "q5": {**question("n1", "no", "verify", "obj", entailed=[]), "isBalanced": False},
    }
    write_json(tmp_path / "data/val_all_questions.json", listed)
    answers = {"q1": "yes", "q2": "left", "q3": "chair", "q4": "blue", "q5": "yes"}
    rows = [{"question_id": key, "answer": text} for key, text in answers.items()]
    result = score("gqa", tmp_path / "data", rows, split="val_all")
    found = values(result)
    assert found["consistency"] == pytest.approx(0.75)
    assert found["accuracy"] == 3 / 4 and result.estimates["accuracy"].n == 4  # q5 is not balanced
    # Without the answer to q5 nothing is known of q1, which is unscored; q2 is left.
    result = score("gqa", tmp_path / "data", rows[:-1], split="val_all")
    assert values(result)["consistency"] == 1.0 and result.estimates["consistency"].unscored == 1


def test_the_balanced_list_alone_has_no_consistency(tmp_path: Path) -> None:
    listed = {"q1": question("n1", "yes", "verify", "attr", entailed=["elsewhere"])}
    write_json(tmp_path / "data/questions/testdev_balanced_questions.json", listed)
    assert "consistency" not in values(score("gqa", tmp_path / "data", [{"id": "q1", "answer": "yes"}]))
