"""HallusionBench: the rule of words, right per question, figure and pair by hand, what errors are laid to, verdicts."""

import json
from pathlib import Path
from typing import Any

import pytest

from sightline.evals.answered_files import score_file
from sightline.evals.benches.hallusionbench import RIGHT, UNCLEAR, WRONG, read_verdict, sample_id, verdict_of
from sightline.evals.benchmark import Setting
from sightline.evals.judging.applying import Judging
from tests.evals.benches.official_files import hallusion_rows, score, values, write_json, write_lines

OFFICIAL = Path(__file__).parents[4] / "shared" / "data" / "hallusionbench.first40.json"

ROWS = hallusion_rows(
    ("VS", "0", "0", "0", "0", "1"),  # asked without a picture
    ("VS", "0", "0", "1", "0", "0"),
    ("VS", "0", "1", "0", "1", "1"),
    ("VS", "0", "1", "1", "1", "0"),
    ("VS", "0", "2", "0", "2", "0"),
    ("VD", "0", "0", "0", "1", "1"),
    ("VD", "0", "0", "1", "1", "0"),
    ("VD", "0", "1", "0", "2", "0"),
)
SAID = ("Maybe", "Yes", "Yes.", "No", "Yes", "yes", "Not clear", "No, it is not")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_json(tmp_path / "data/HallusionBench.json", ROWS)
    return tmp_path / "data"


def answers(rows: list[dict[str, Any]], said: tuple[str, ...], **more: list[str]) -> list[dict[str, Any]]:
    """The owners' result file: each row with the model's answer."""
    extra = [dict(zip(more, found, strict=True)) for found in zip(*more.values(), strict=True)] or [{}] * len(rows)
    return [{**row, "model_prediction": text, **add} for row, text, add in zip(rows, said, extra, strict=True)]


@pytest.mark.parametrize(
    ("text", "truth", "verdict"),
    [
        ("Yes", 1, RIGHT),
        ("no.", 1, WRONG),
        ("The answer is: YES!", 1, RIGHT),
        ("Yes, there is no doubt", 1, UNCLEAR),  # both words
        ("I know nothing", 0, UNCLEAR),  # "no" within a word is none
        ("Not at all", 0, UNCLEAR),
        ("", 0, UNCLEAR),
        ("1", 1, RIGHT),
        ("0", 0, RIGHT),
        ("2", 1, UNCLEAR),
        ("Yes", None, None),
    ],
)
def test_words_are_read(text: str, truth: float | None, verdict: float | None) -> None:
    assert verdict_of(text, truth) == verdict


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("correct", RIGHT),
        ("Incorrect.", WRONG),
        ("It is not incorrect", WRONG),
        ("unclear", UNCLEAR),
        ("The answer is unclear, not correct", RIGHT),  # the owners look for "correct" before they give up
        ("yes", None),
    ],
)
def test_a_judges_word_is_read(reply: str, verdict: float | None) -> None:
    assert read_verdict(reply) == (None if verdict is None else {"verdict": verdict})


def test_questions_figures_and_pairs_by_hand(data: Path) -> None:
    """Right are rows 0 (nothing shown, so "Maybe" will do), 2, 3, 5 and 7; row 1, 4 and 6 are not.

    Figures with a picture: VS 1 (both right), VS 2 (wrong), VD 0 (half right), VD 1 (right): 2 of 4, share 2.5 / 4.
    Pairs: VS 0 (right, right, wrong), VS 1 (wrong, right), VD 0 (right, right), VD 1 (unclear): 1 of 4.
    Easy: VS 0 right, VS 1 wrong, VD 0 right, VD 1 unclear. Hard: VS 0 (right, wrong), VS 1 right, VD 0 right.
    """
    found = values(score("hallusionbench", data, answers(ROWS, SAID)))
    assert (found["aAcc"], found["fAcc"], found["qAcc"]) == (5 / 8, 2 / 4, 1 / 4)
    assert (found["easy"], found["hard"], found["figure_score"]) == (2 / 4, 2 / 3, 2.5 / 4)
    assert (found["aAcc_VS"], found["fAcc_VS"], found["qAcc_VS"]) == (3 / 5, 1 / 2, 0.0)
    assert (found["aAcc_VD"], found["fAcc_VD"], found["qAcc_VD"]) == (2 / 3, 1 / 2, 1 / 2)
    assert (found["easy_VS"], found["hard_VS"], found["easy_VD"], found["hard_VD"]) == (1 / 2, 1 / 2, 1 / 2, 1.0)
    # Row 1: wrong without a picture; row 4: wrong before an altered one; row 6: unclear before the original.
    assert (found["LH"], found["Mix"], found["VI"], found["unclear"]) == (1, 1, 1, 2 / 8)


def test_a_missing_answer_leaves_what_it_belongs_to_unscored(data: Path) -> None:
    made = score("hallusionbench", data, answers(ROWS, SAID)[:-1])
    assert (made.estimates["fAcc"].value, made.estimates["fAcc"].n, made.estimates["fAcc"].unscored) == (1 / 3, 3, 1)
    assert (made.estimates["qAcc"].n, made.estimates["qAcc"].unscored) == (3, 1)


def test_ids_are_the_owners_names_or_places_in_the_list(data: Path) -> None:
    by_name = [{"id": sample_id(row), "answer": text} for row, text in zip(ROWS, SAID, strict=True)]
    by_place = [{"question_id": place, "answer": text} for place, text in enumerate(SAID)]
    found = [values(score("hallusionbench", data, rows)) for rows in (by_name, by_place, answers(ROWS, SAID))]
    assert found[0] == found[1] == found[2]


def test_verdicts_of_the_owners_result_files_are_taken(data: Path, tmp_path: Path) -> None:
    checked = ["2", "0", "1", "1", "0", "1", "2", "1"]
    said = answers(ROWS, ("It depends.",) * 8, gpt4v_output_gpt_check=checked)
    file = write_json(tmp_path / "result.json", said)
    made = score_file("hallusionbench", file, Setting(data), judging=Judging(verdicts=file), resamples=100)
    found, by_words = values(made), values(score("hallusionbench", data, answers(ROWS, SAID)))
    same = ("aAcc", "fAcc", "qAcc", "easy", "hard", "LH", "VI", "Mix", "figure_score")
    assert {name: found[name] for name in same} == {name: by_words[name] for name in same}
    assert made.notes == ()
    by_rule = score_file("hallusionbench-words", file, Setting(data), judging=Judging(verdicts=file), resamples=100)
    assert values(by_rule)["unclear"] == 1.0


def test_without_a_judge_it_says_so(data: Path) -> None:
    assert score("hallusionbench", data, answers(ROWS, SAID)).notes == (
        "hallusionbench is scored by words; its owners ask a judge, which --judge gives",
    )


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the extract of the official list is not here")
def test_the_official_list_is_read(tmp_path: Path) -> None:
    """Its first 40 rows: 'yes' to everything is right where the truth is 1."""
    rows = json.loads(OFFICIAL.read_text())
    write_json(tmp_path / "data/HallusionBench.json", rows)
    file = write_lines(tmp_path / "a.jsonl", [{**row, "model_prediction": "Yes"} for row in rows])
    found = values(score("hallusionbench", tmp_path / "data", file))
    assert found["aAcc"] == pytest.approx(sum(row["gt_answer"] == "1" for row in rows) / 40)
