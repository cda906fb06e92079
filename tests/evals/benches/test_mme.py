"""MME: parsing of answers, both file layouts, and sub-tasks, accuracy+ and totals by hand."""

from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.evals.benches.mme import yes_no_other
from tests.evals.benches.official_files import mme_release, score, values

QUESTIONS = {
    "existence": [
        ("001", "Is there a cup?", "Yes"),
        ("001", "Is there a dog?", "No"),
        ("002", "Is there a hat?", "Yes"),
        ("002", "Is there a bus?", "No"),
    ],
    "color": [("010", "Is it red?", "Yes"), ("010", "Is it blue?", "No")],
    "code_reasoning": [("0020", "Is it python?", "Yes"), ("0020", "Is it c++?", "No")],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return mme_release(tmp_path / "data", QUESTIONS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        ("no", "no"),
        ("No.", "no"),
        (" yes", "yes"),
        ("  yes", "other"),  # the fifth character is not looked at
        ("Know", "no"),
        ("Nope", "no"),
        ("Unknown", "other"),
        ("y", "other"),
        ("It is. Yes", "other"),
        ("", "other"),
        ("noyes", "no"),
        ("YES, no", "yes"),
    ],
)
def test_the_first_four_characters_decide(text: str, expected: str) -> None:
    assert yes_no_other(text) == expected


def llava_rows(texts: dict[str, list[str]]) -> list[dict[str, str]]:
    """Rows of LLaVA's evaluation: the image as the id, the question in the prompt."""
    rows = []
    for task, questions in QUESTIONS.items():
        for (picture, question, _), text in zip(questions, texts[task], strict=True):
            prompt = f"{question}\nAnswer the question using a single word or phrase."
            rows.append({"question_id": f"{task}/images/{picture}.png", "prompt": prompt, "text": text})
    return rows[::-1]


TEXTS = {"existence": ["Yes", "No", "Yes", "Perhaps"], "color": ["Yes", "Yes"], "code_reasoning": ["yes", "no"]}


def assert_figures_by_hand(found: dict[str, float | None]) -> None:
    """existence: 3 of 4 and 1 of 2 pictures; color: 1 of 2 and none; code: all. Two sub-tasks of ten, one of four."""
    assert (found["existence_acc"], found["existence_acc_plus"], found["existence"]) == (0.75, 0.5, 125.0)
    assert (found["color_acc"], found["color_acc_plus"], found["color"]) == (0.5, 0.0, 50.0)
    assert (found["perception"], found["cognition"], found["total"]) == (175.0, 200.0, 375.0)
    assert found["other"] == found["touched"] == 1


def test_scores_by_hand_from_llavas_answers(data: Path) -> None:
    result = score("mme", data, llava_rows(TEXTS))
    assert_figures_by_hand(values(result))
    assert result.metrics["perception"].label == "Perception (2 of 10 sub-tasks)"


def write_results(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for task, questions in QUESTIONS.items():
        lines = [
            f"{picture}.txt\t{question} Please answer yes or no.\t{truth}\t{text}\n"
            for (picture, question, truth), text in zip(questions, TEXTS[task], strict=True)
        ]
        (folder / f"{task}.txt").write_text("".join(lines))
    return folder


def test_result_files_are_answers_and_truth(data: Path, tmp_path: Path) -> None:
    results = write_results(tmp_path / "eval_tool/Your_Results")
    assert_figures_by_hand(values(score("mme", data, results)))
    assert_figures_by_hand(values(score("mme", results, results)))
    assert_figures_by_hand(values(score("mme", tmp_path, llava_rows(TEXTS))))


def test_a_missing_answer_leaves_its_picture_unscored(data: Path) -> None:
    result = score("mme", data, llava_rows(TEXTS)[:-1])  # the first of existence
    assert result.estimates["existence_acc"].value == pytest.approx(2 / 3)
    plus = result.estimates["existence_acc_plus"]
    assert (plus.value, plus.n, plus.unscored) == (0.0, 1, 1)


def test_a_torn_result_file_is_named_with_its_line(data: Path, tmp_path: Path) -> None:
    results = write_results(tmp_path / "results")
    (results / "color.txt").write_text("010.png\tIs it red?\tYes\tYes,\n\tred\n")
    with pytest.raises(InputError, match=r"color.txt line 2: give picture, question, Yes or No, and answer"):
        score("mme", data, results)


def test_a_picture_with_one_question_is_refused(tmp_path: Path) -> None:
    folder = mme_release(tmp_path / "data", {"count": [("1", "Is it?", "Yes")]})
    with pytest.raises(InputError, match="picture count/1 has 1 questions but needs two"):
        score("mme", folder, [{"question_id": "count/1/0", "answer": "yes"}])


def test_a_folder_of_neither_layout_names_the_owners(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"mme needs the folders of its sub-tasks .* publish them at https://github.com/"
    ):
        score("mme", tmp_path, [{"question_id": "count/1/0", "answer": "yes"}])
