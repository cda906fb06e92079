"""ScienceQA: letters by LLaVA's rule, letters beyond the options, questions with images, splits."""

from pathlib import Path
from typing import Any

import pytest

from sightline.errors import InputError
from sightline.evals.benches.scienceqa import build_prompt, option_letter
from tests.evals.benches.official_files import score, values, write_json


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"),
        ("E", "E"),
        ("F", None),
        ("a", None),
        (" B ", None),  # the text as such, white space and all
        ("A\n", None),
        ("A\nB", None),
        ("A.", None),  # neither the letter alone nor ". " behind it
        ("A. ", "A"),
        ("A.\n", None),
        ("A. Maine", "A"),
        (" A. Maine", None),
        ("A) Maine", None),
        ("(A)", None),
        ("The answer is C.", "C"),
        ("So: The answer is C. Because", "C"),
        ("The answer is C", None),  # one more character must stand behind the letter
        ("The answer is C\n", None),  # and it is no line break
        ("The answer is C\nThe answer is D.", "D"),
        ("The answer is Both.", "B"),
        ("The answer is B. The answer is A.", None),  # exactly one
        ("The answer is A.\nThe answer is A.", None),
        ("The answer is BThe answer is C.", "B"),  # the second one begins in the first
        ("The answer is B or so. The answer is C.", None),
        ("The answer is F. The answer is C.", None),
        ("The answer is F.", None),
        ("B. The answer is C.", "B"),
        ("the answer is C.", None),
        ("The answer is (C).", None),
        ("The answer is\nC", None),
        ("", None),
    ],
)
def test_the_letter_that_is_read(text: str, letter: str | None) -> None:
    assert option_letter(text) == letter


def problem(answer: int, choices: int, image: str | None = None, **more: Any) -> dict[str, Any]:
    options = ["one", "two", "three", "four", "five"][:choices]
    return {
        "question": "Which?",
        "choices": options,
        "answer": answer,
        "hint": "",
        "image": image,
        "split": "test",
        **more,
    }


PROBLEMS = {
    "4": problem(1, 2),
    "5": problem(1, 3, "image.png"),
    "11": problem(0, 2, "image.png"),
    "15": problem(4, 5, split="val"),
    "20": problem(0, 2),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_json(tmp_path / "data/problems.json", PROBLEMS)
    write_json(tmp_path / "data/pid_splits.json", {"test": ["4", "5", "11", "20"], "val": ["15"]})
    return tmp_path / "data"


def test_accuracy_of_all_and_of_pictures(data: Path) -> None:
    answers = {"4": "B", "5": "B. two", "11": "C", "20": "I think A"}  # C is beyond the two options of 11
    rows = [{"question_id": key, "text": text} for key, text in answers.items()]
    found = values(score("scienceqa", data, rows))
    assert (found["accuracy"], found["img_accuracy"], found["failed"], found["touched"]) == (0.5, 0.5, 0.5, 2)
    found = values(score("scienceqa-img", data, rows[1:3]))
    assert (found["img_accuracy"], found["failed"]) == (0.5, 0.5) and "accuracy" not in found


def test_letters_that_are_named_twice_or_at_the_end_are_wrong(data: Path) -> None:
    answers = {"4": "The answer is B", "5": "B\n", "11": "The answer is B. The answer is A.", "20": "The answer is A."}
    found = values(score("scienceqa", data, [{"question_id": key, "text": text} for key, text in answers.items()]))
    assert (found["accuracy"], found["img_accuracy"], found["failed"]) == (1 / 4, 0.0, 3 / 4)


def test_other_splits(data: Path) -> None:
    assert values(score("scienceqa", data, [{"question_id": "15", "text": "E"}], split="val"))["accuracy"] == 1.0
    with pytest.raises(InputError, match="no split 'dev'"):
        score("scienceqa", data, [{"question_id": "15", "text": "E"}], split="dev")


def test_the_prompt_holds_hint_and_lettered_options() -> None:
    prompt = build_prompt(problem(0, 2, hint="Look closely."))
    assert prompt.startswith("Context: Look closely.\nWhich?\nA. one\nB. two\nAnswer with the option's letter")
