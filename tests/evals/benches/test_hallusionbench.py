"""HallusionBench: the rule of words, accuracy per question, figure and pair by hand, causes of errors, verdicts."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sightline.cli import app
from sightline.errors import InputError
from sightline.evals.benches.hallusion_groups import RIGHT, UNCLEAR, WRONG
from sightline.evals.benches.hallusionbench import read_verdict, sample_id, verdict_by_words
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.judging.judged_scoring import Judging
from sightline.evals.offline_scoring import score_file
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
TEXTS = ("Maybe", "Yes", "Yes.", "No", "Yes", "yes", "Not clear", "No, it is not")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_json(tmp_path / "data/HallusionBench.json", ROWS)
    return tmp_path / "data"


def answers(rows: list[dict[str, Any]], texts: tuple[str, ...], **more: list[str]) -> list[dict[str, Any]]:
    """The owners' result file: each row with the model's answer."""
    extra = [dict(zip(more, found, strict=True)) for found in zip(*more.values(), strict=True)] or [{}] * len(rows)
    return [{**row, "model_prediction": text, **add} for row, text, add in zip(rows, texts, extra, strict=True)]


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
    assert verdict_by_words(text, truth) == verdict


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
    Easy, which is all but visual input 2: VS 0 (right, right), VS 1 (wrong, right), VD 0 right, VD 1 unclear: 2 of 4.
    Hard: VS 0 wrong, VD 0 right: 1 of 2.
    """
    found = values(score("hallusionbench", data, answers(ROWS, TEXTS)))
    assert (found["aAcc"], found["fAcc"], found["qAcc"]) == (5 / 8, 2 / 4, 1 / 4)
    assert (found["easy"], found["hard"], found["figure_score"]) == (2 / 4, 1 / 2, 2.5 / 4)
    assert (found["aAcc_VS"], found["fAcc_VS"], found["qAcc_VS"]) == (3 / 5, 1 / 2, 0.0)
    assert (found["aAcc_VD"], found["fAcc_VD"], found["qAcc_VD"]) == (2 / 3, 1 / 2, 1 / 2)
    assert (found["easy_VS"], found["hard_VS"], found["easy_VD"], found["hard_VD"]) == (1 / 2, 0.0, 1 / 2, 1.0)
    # Row 1: wrong without a picture; row 4: wrong before an altered one; row 6: unclear before the original.
    assert (found["LH"], found["Mix"], found["VI"], found["unclear"]) == (1, 1, 1, 2 / 8)


def test_an_original_figure_is_easy_whatever_its_number(data: Path) -> None:
    """As the owners' code: visual input 2 is hard. Figure 1 is an original one, and wrong; the altered one is right."""
    rows = hallusion_rows(
        ("VS", "0", "0", "0", "0", "1"), ("VS", "0", "1", "0", "1", "1"), ("VS", "0", "2", "0", "2", "0")
    )
    write_json(data / "HallusionBench.json", rows)
    result = score("hallusionbench", data, answers(rows, ("Yes", "No", "No")))
    found = values(result)
    assert (found["easy"], found["hard"], found["easy_VS"], found["hard_VS"]) == (0.0, 1.0, 0.0, 1.0)
    assert (result.estimates["easy"].n, result.estimates["hard"].n) == (1, 1)


def test_bias_and_consistency_by_hand(data: Path) -> None:
    """Rows 1, 4 and 6 are wrong, the truth of each is no. Every wrong answer counts as a yes there: 6 yes of 8, 3 true.

    Of the four figures two are right, VD 0 is half right, VS 2 is wrong.
    """
    found = values(score("hallusionbench", data, answers(ROWS, TEXTS)))
    assert (found["yes_difference"], found["false_positive_ratio"]) == (3 / 8, 1.0)
    consistency = [found[f"consistency_{name}"] for name in ("correct", "inconsistent", "wrong")]
    assert consistency == [2 / 4, 1 / 4, 1 / 4]
    # Row 1 is wrong without a figure: LH. Row 4 is wrong where nothing was known without a figure, row 6 is the
    # original figure: VI.
    assert [found[f"{name}_share"] for name in ("LH", "VI", "Mixed")] == pytest.approx([1 / 3, 2 / 3, 0.0])


#: (category, visual input of the second figure, verdict on the original, on the second figure, whether both answers
#: agree) -> what the error on the second figure is laid to, by the branches of the owners' `get_eval_pair_all`.
CAUSED = [
    ("VD", "2", "1", "0", "1", "Mixed"),
    ("VD", "2", "1", "0", "0", "VI"),
    ("VD", "2", "1", "2", "0", "VI"),
    ("VD", "2", "1", "1", "1", None),
    ("VD", "2", "0", "0", "1", "VI"),
    ("VD", "2", "2", "2", "1", "VI"),
    ("VS", "2", "0", "0", "1", "LH"),
    ("VS", "2", "0", "0", "0", "Mixed"),
    ("VS", "2", "0", "2", "1", "Mixed"),
    ("VS", "1", "2", "0", "1", "VI"),
    ("VS", "1", "2", "2", "1", "VI"),
    ("VS", "2", "1", "2", "1", "VI"),
    ("VS", "1", "1", "0", "1", "VI"),
    ("VS", "2", "1", "0", "1", "LH"),
    ("VS", "2", "1", "0", "0", "VI"),
    ("VS", "2", "1", "1", "0", None),
]


def graded_rows(case: tuple[str, str, str, str, str, str | None]) -> list[dict[str, Any]]:
    category, shown, before, after, same, _ = case
    rows = hallusion_rows(
        (category, "0", "0", "0", "1" if category == "VD" else "0", "1"), (category, "0", "1", "0", shown, "0")
    )
    return answers(rows, ("x", "x"), gpt4v_output_gpt_check=[before, after], same=["1", same])


@pytest.mark.parametrize("case", CAUSED)
def test_errors_are_laid_to_what_the_owners_lay_them_to(
    data: Path, tmp_path: Path, case: tuple[str, str, str, str, str, str | None]
) -> None:
    rows = graded_rows(case)
    write_json(data / "HallusionBench.json", rows)
    file = write_json(tmp_path / "graded.json", rows)
    result = score_file("hallusionbench", file, BenchmarkOptions(data), judging=Judging(verdicts=file), resamples=100)
    category, _, before, _, _, cause = case
    # The original figure's own error: vision where it was shown, language where nothing was.
    own = "VI" if category == "VD" and before != "1" else "LH" if category == "VS" and before == "0" else None
    expected = [one for one in (own, cause) if one]
    shares = {name: values(result)[f"{name}_share"] for name in ("LH", "VI", "Mixed")}
    assert shares == {name: expected.count(name) / len(expected) if expected else None for name in shares}


def test_without_same_the_answers_yes_and_no_are_compared(data: Path, tmp_path: Path) -> None:
    """Original right (yes), altered wrong: the truth is no, so yes was said again, which is Mixed and not VI."""
    rows = [{name: row[name] for name in row if name != "same"} for row in graded_rows(CAUSED[1])]
    write_json(data / "HallusionBench.json", rows)
    file = write_json(tmp_path / "graded.json", rows)
    result = score_file("hallusionbench", file, BenchmarkOptions(data), judging=Judging(verdicts=file), resamples=100)
    assert values(result)["Mixed_share"] == 1.0
    assert any("compare the answers' yes and no" in note for note in result.notes)


def test_a_group_counts_by_the_answers_that_are_there(data: Path) -> None:
    """Without row 7, VD 1 has no answer and is unscored, and the pair VD 0 is right by row 5 alone."""
    result = score("hallusionbench", data, answers(ROWS, TEXTS)[:-1])
    assert (result.estimates["fAcc"].value, result.estimates["fAcc"].n, result.estimates["fAcc"].unscored) == (
        1 / 3,
        3,
        1,
    )
    assert (result.estimates["qAcc"].value, result.estimates["qAcc"].n, result.estimates["qAcc"].unscored) == (
        1 / 4,
        4,
        0,
    )
    assert (result.estimates["hard"].value, result.estimates["hard"].unscored) == (0.0, 1)


def graded_halves(folder: Path) -> list[dict[str, Any]]:
    """The two files that evaluation.py keeps, and all rows of both."""
    checked = ["2", "0", "1", "1", "0", "1", "2", "1"]
    rows = answers(ROWS, ("It depends.",) * 8, gpt4v_output_gpt_check=checked, same=["1"] * 8)
    for category in ("vd", "vs"):
        half = [row for row in rows if row["category"] == category.upper()]
        write_json(folder / f"hallusion_output_{category}_model.json", half)
    return rows


def test_both_graded_files_are_taken_by_name_or_as_a_folder(data: Path, tmp_path: Path) -> None:
    rows = graded_halves(tmp_path / "graded")
    file, folder = write_json(tmp_path / "all.json", rows), tmp_path / "graded"
    both = [folder / "hallusion_output_vd_model.json", folder / "hallusion_output_vs_model.json"]
    lines: list[str] = []
    found = [
        values(
            score_file(
                "hallusionbench",
                file,
                BenchmarkOptions(data),
                judging=Judging(None, verdicts, lines.append),
                resamples=100,
            )
        )
        for verdicts in (file, both, [folder])
    ]
    assert found[0] == found[1] == found[2] and found[0]["aAcc"] == 5 / 8 and lines == []
    judging = Judging(None, both[0], lines.append)
    half = score_file("hallusionbench", file, BenchmarkOptions(data), judging=judging, resamples=100)
    assert (half.estimates["aAcc"].n, half.estimates["aAcc"].unscored) == (3, 5)
    assert lines == [f"note: 5 of 8 answers have no verdict in {both[0]} and are unscored; --verdicts may be repeated"]


def test_the_command_takes_verdicts_repeatedly(data: Path, tmp_path: Path) -> None:
    file = write_json(tmp_path / "all.json", graded_halves(tmp_path / "graded"))
    command = ["score", "hallusionbench", "--answers", file, "--data", data, "--json", "--resamples", "100"]
    for category in ("vd", "vs"):
        command += ["--verdicts", tmp_path / f"graded/hallusion_output_{category}_model.json"]
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["aAcc"]["n"] == 8


def test_two_verdicts_on_one_answer_are_refused(data: Path, tmp_path: Path) -> None:
    file = write_json(tmp_path / "all.json", graded_halves(tmp_path / "graded"))
    judging = Judging(verdicts=[file, tmp_path / "graded"])
    with pytest.raises(
        InputError, match="both hold a verdict on VD_chart_0_0_0; give --verdicts the files of one model"
    ):
        score_file("hallusionbench", file, BenchmarkOptions(data), judging=judging)


def test_ids_are_the_owners_names_or_places_in_the_list(data: Path) -> None:
    by_name = [{"id": sample_id(row), "answer": text} for row, text in zip(ROWS, TEXTS, strict=True)]
    by_place = [{"question_id": place, "answer": text} for place, text in enumerate(TEXTS)]
    found = [values(score("hallusionbench", data, rows)) for rows in (by_name, by_place, answers(ROWS, TEXTS))]
    assert found[0] == found[1] == found[2]


def test_verdicts_of_the_owners_result_files_are_taken(data: Path, tmp_path: Path) -> None:
    checked = ["2", "0", "1", "1", "0", "1", "2", "1"]
    rows = answers(ROWS, ("It depends.",) * 8, gpt4v_output_gpt_check=checked)
    file = write_json(tmp_path / "result.json", rows)
    result = score_file("hallusionbench", file, BenchmarkOptions(data), judging=Judging(verdicts=file), resamples=100)
    found, by_words = values(result), values(score("hallusionbench", data, answers(ROWS, TEXTS)))
    same = ("aAcc", "fAcc", "qAcc", "easy", "hard", "LH", "VI", "Mix", "figure_score")
    assert {name: found[name] for name in same} == {name: by_words[name] for name in same}
    assert len(result.notes) == 1 and "yes and no" in result.notes[0]  # the file has no `same`
    by_rule = score_file(
        "hallusionbench-words", file, BenchmarkOptions(data), judging=Judging(verdicts=file), resamples=100
    )
    assert values(by_rule)["unclear"] == 1.0


def test_without_a_judge_it_says_so(data: Path) -> None:
    assert score("hallusionbench", data, answers(ROWS, TEXTS)).notes == (
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
