"""TextVQA: quirks of the answer processor, soft accuracy by hand, and layouts of answer files."""

from pathlib import Path
from typing import Any

import pytest

from sightline.errors import InputError
from sightline.evals.benches.textvqa import extract_question
from sightline.evals.benches.words import CONTRACTIONS, process_answer, soft_accuracy
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.directory import read_result
from sightline.evals.offline_scoring import score_file
from tests.evals.benches.official_files import score, values, write_json, write_lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Two Dogs", "2 dogs"),
        ("none", "0"),
        ("a 10", "10"),
        ("ten", "10"),
        ("eleven", "eleven"),  # the table ends at ten
        ("1,000", "1000"),  # commas go first, so that the rule for commas between digits never applies
        ("what?", "what"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),  # both apostrophes missing: in no table
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),  # the entry that stands the wrong way round
        ("he's", "he 's"),  # split off before contractions are looked up
        ("hes", "he's"),  # so that this never equals the line above
        ("Im", "im"),  # upper case entries cannot be met in lower case text
        ("coca-cola", "coca cola"),
        ("coca - cola", "coca cola"),
        ("coca- cola/pepsi", "coca cola pepsi"),
        ("x-y - z", "xy z"),  # one hyphen beside a space removes all of them
        ("U.S.A.", "usa"),
        ("3.5", "3.5"),
        ("3.", "3"),
        (".5", ".5"),
        ("." * 40 + "a", "." * 8 + "a"),  # the 32nd full stop is the last that goes
        ("line\none\ttwo", "line 1 2"),
        ("12:30pm", "12:30pm"),
        ("$5", "$5"),
        ("", ""),
    ],
)
def test_an_answer_is_processed_as_evalai_does(text: str, expected: str) -> None:
    assert process_answer(text) == expected


def test_the_table_of_contractions_is_derived_whole() -> None:
    """One entry for each apostrophe that may be missing, and one reversed entry: 114 in all."""
    right = {word for wrong, word in CONTRACTIONS.items() if wrong != "somebody'd"}
    by_count = {count: sum(word.count("'") == count for word in right) for count in (1, 2, 3)}
    assert sum(count * words for count, words in by_count.items()) + 1 == len(CONTRACTIONS) == 114
    assert by_count[2] == 17 and by_count[3] == 2
    assert CONTRACTIONS["mightn'tve"] == CONTRACTIONS["mightnt've"] == "mightn't've"


def people(*groups: tuple[str, int]) -> list[str]:
    found = [answer for answer, times in groups for _ in range(times)]
    return [*found, *(f"other {number}" for number in range(10 - len(found)))]


@pytest.mark.parametrize(
    ("times", "accuracy"),
    [
        (0, 0.0),
        (1, 9 * (1 / 3) / 10),  # left out once, one of the nine the other times
        (2, (2 * (1 / 3) + 8 * (2 / 3)) / 10),  # 0.6
        (3, (3 * (2 / 3) + 7) / 10),  # 0.9
        (4, 1.0),
        (10, 1.0),
    ],
)
def test_agreement_is_averaged_over_leaving_each_one_out(times: int, accuracy: float) -> None:
    assert soft_accuracy("A Stop!", people(("stop", times))) == pytest.approx(accuracy, abs=1e-15)


def test_human_answers_are_processed_too() -> None:
    assert soft_accuracy("two", people(("2", 1), ("Two", 1), ("the two", 1), ("two.", 1))) == 1.0


def rows(*questions: tuple[int, str, str, list[str]]) -> dict[str, Any]:
    return {
        "data": [
            {"question_id": key, "image_id": image, "question": question, "answers": answers}
            for key, image, question, answers in questions
        ]
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    listed = rows(
        (34602, "aa11", "What is the Brand?", people(("nous les gosses", 2))),
        (34603, "aa11", "what time is it?", people(("12:30", 3))),
        (34604, "bb22", "what time is it?", people(("ten", 10))),
    )
    write_json(folder / "TextVQA_0.5.1_val.json", listed)
    return folder


def test_answers_by_question_id(data: Path) -> None:
    rows: list[dict[str, object]] = [
        {"question_id": 34604, "answer": "10"},
        {"question_id": "34602", "answer": "Nous les gosses."},
    ]
    result = score("textvqa", data, rows)
    assert values(result)["accuracy"] == pytest.approx((1.0 + 0.6) / 2)
    assert (result.estimates["accuracy"].n, result.estimates["accuracy"].unscored) == (2, 1)


def test_llavas_layout_names_the_image_and_repeats_the_question(data: Path) -> None:
    end = "\nAnswer the question using a single word or phrase."
    rows = [
        {"question_id": "bb22", "prompt": "What time is it?\nReference OCR token: 10" + end, "text": "ten"},
        {"question_id": "aa11", "prompt": "What time is it?" + end, "text": "12:30"},
        {"question_id": "aa11", "prompt": "Reference OCR token: x\nwhat is the brand?" + end, "text": "nike"},
    ]
    result = score("textvqa", data, rows)
    assert values(result)["accuracy"] == pytest.approx((1.0 + 0.9 + 0.0) / 3)
    assert result.notes == ()


def test_a_question_asked_again_is_scored_by_its_last_annotation_where_ids_are_pictures(tmp_path: Path) -> None:
    """LLaVA's rows do not distinguish the two questions; its evaluator scores both by the later annotation."""
    folder = tmp_path / "data"
    listed = rows(
        (7, "aa11", "What brand?", people(("nike", 10))),
        (8, "aa11", "What time?", people(("ten", 10))),
        (9, "aa11", "what brand?", people(("puma", 10))),
    )
    write_json(folder / "TextVQA_0.5.1_val.json", listed)
    end = "\nAnswer the question using a single word or phrase."
    prompts = [(f"{question}{end}", text) for question, text in (("What brand?", "nike"), ("what brand?", "puma"))]
    given = [{"question_id": "aa11", "prompt": prompt, "text": text} for prompt, text in prompts]
    time = {"question_id": "aa11", "prompt": f"What time?{end}", "text": "10"}
    for ordered in ([*given, time], [time, *given], [given[0], time, given[1]]):
        result = score("textvqa", folder, ordered)
        assert values(result)["accuracy"] == pytest.approx((0 + 1 + 1) / 3) and result.estimates["accuracy"].n == 3
        assert result.notes == ()
    by_id = [{"question_id": key, "answer": text} for key, text in ((7, "nike"), (8, "ten"), (9, "puma"))]
    assert values(score("textvqa", folder, by_id))["accuracy"] == 1.0  # each by its own people
    # A third answer to the two is one too many; of one alone, the other question is unanswered.
    assert (
        "1 answers repeat a sample that already has one" in score("textvqa", folder, [*given, time, given[0]]).notes[0]
    )
    assert (score("textvqa", folder, given[1:]).estimates["accuracy"].unscored) == 2
    kept = tmp_path / "kept"
    file = write_lines(tmp_path / "a.jsonl", [*given, time])
    score_file("textvqa", file, BenchmarkOptions(folder), out=kept, resamples=100)
    again = score_file("textvqa", kept / "textvqa/answers.jsonl", BenchmarkOptions(folder), resamples=100)
    assert values(again)["accuracy"] == 1.0  # our own file names ids
    assert [row.truth["answers"][0] for row in read_result(kept, "textvqa").samples] == ["puma", "ten", "puma"]


def test_questions_are_found_in_prompts() -> None:
    assert extract_question("OCR tokens: a, b. Question: What Is It? Short answer:") == "what is it?"
    assert extract_question("What?\nAnswer briefly.") == "what?"
    assert extract_question("What Now?") == "what now?"


def test_the_split_without_answers_is_refused(data: Path) -> None:
    listed = rows((1, "aa11", "what?", []))
    write_json(data / "TextVQA_0.5.1_val.json", listed)
    with pytest.raises(InputError, match=r"data\[0\]: 10 human answers are needed"):
        score("textvqa", data, [{"question_id": 1, "answer": "x"}])


def test_a_missing_list_is_named_with_its_owners(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"textvqa needs TextVQA_0.5.1_val.json in .* publish it at https://textvqa.org"
    ):
        score("textvqa", tmp_path / "data", [{"question_id": 1, "answer": "x"}])
