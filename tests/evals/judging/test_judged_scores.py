"""Figures of judged benchmarks by hand, from a real server on loopback and from the owners' own files of verdicts."""

import re
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import InputError
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.judging.judged_scoring import Judging
from sightline.evals.offline_scoring import score_file
from tests.evals.benches.official_files import score, values, write_json, write_lines
from tests.evals.judging.conftest import graded, judge_at
from tests.evals.judging.folders import llava_folder, mmhal_answers, mmhal_folder, mmvet_folder
from tests.judges.local_server import Act, Body, pictures_of, say, serving, status, text_of

RATINGS = (6, 2, 0, 3, None, "failed", 4, 1)


def rates(body: Body, number: int) -> Act:
    """Grades by the number in the answer; the fifth reply names two ratings, the sixth call fails."""
    place = int(re.findall(r"answered: thing (\d)", text_of(body))[0])
    rating = RATINGS[place]
    if rating == "failed":
        return status(500, {})
    return say("Rating: 2 or Rating: 5" if rating is None else f"Well.\nRating: {rating}")


def test_mmhal_by_hand(tmp_path: Path) -> None:
    """Ratings 6 2 0 3 - - 4 1: 16 / 6, three below 3; with the unreadable one as 0: 16 / 7, four of seven."""
    data = mmhal_folder(tmp_path / "data")
    answers = mmhal_answers(data, *(f"thing {number}" for number in range(8)))
    with serving(rates) as (url, heard):
        result, costs = graded("mmhal", data, answers, judge_at(url))
        assert (
            "The picture holds: Cup, Table\nQuestion: What is number 3?\nA person answered: It is thing 3."
            in "".join(heard.texts())
        )
        assert not any(pictures_of(body) for body in heard.bodies)
    found = values(result)
    assert found["score"] == pytest.approx(16 / 6) and found["hallucination_rate"] == 3 / 6
    assert found["score_official"] == pytest.approx(16 / 7)
    assert found["hallucination_rate_official"] == pytest.approx(4 / 7)
    assert found["touched"] == 1
    assert (result.estimates["score"].n, result.estimates["score"].unscored) == (6, 2)
    assert (found["score_attribute"], found["score_other"], found["score_environment"]) == (6.0, 1.0, None)
    assert costs[-1].endswith("unscored: 1 failed, 1 unreadable of 8")


def test_mmhal_v_shows_the_picture(tmp_path: Path) -> None:
    data = mmhal_folder(tmp_path / "data", 2)

    def sees(body: Body, number: int) -> Act:
        red = pictures_of(body)[0].convert("RGB").getpixel((0, 0))[0]  # type: ignore[index]
        return say(f"Rating: {red // 20}")

    with serving(sees) as (url, _):
        result, _ = graded("mmhal-v", data, mmhal_answers(data, "a", "b"), judge_at(url))
    assert values(result)["score"] == 0.5  # rating 0 of picture 0, 1 of picture 1


def test_without_a_judge_all_is_unscored_and_it_says_how(tmp_path: Path) -> None:
    data = mmhal_folder(tmp_path / "data")
    result = score("mmhal", data, mmhal_answers(data, *"abcdefgh"))
    assert (result.estimates["score"].value, result.estimates["score"].unscored) == (None, 8)
    assert result.notes == (
        "mmhal is graded by a judge and unscored without one; run `sightline score mmhal --answers ANSWERS"
        " --data DATA --judge JUDGE.yaml`",
    )


def test_mmhals_evaluation_file_is_read(tmp_path: Path) -> None:
    data = mmhal_folder(tmp_path / "data", 3)
    answers = write_json(tmp_path / "a.json", mmhal_answers(data, "a", "b", "c"))
    replies = ["Rating: 5", "no idea", "Rating: 1"]
    theirs = write_json(tmp_path / "e.json", [{"choices": [{"message": {"content": text}}]} for text in replies])
    found = values(
        score_file("mmhal", answers, BenchmarkOptions(data), judging=Judging(verdicts=theirs), resamples=100)
    )
    assert (found["score"], found["score_official"], found["hallucination_rate_official"]) == (3.0, 2.0, 2 / 3)


def test_mmhals_informativeness_is_that_of_ratings_with_and_without_hallucination(tmp_path: Path) -> None:
    """Ratings 6 5 3 2 0 are 3 2 0 2 0 of 3, and what is unread 0: 7 / 15, and 7 / 18 as the owners print it."""
    data = mmhal_folder(tmp_path / "data", 6)
    answers = write_json(tmp_path / "a.json", mmhal_answers(data, *"abcdef"))
    replies = ["Rating: 6", "Rating: 5", "Rating: 3", "Rating: 2", "Rating: 0", "no idea"]
    theirs = write_json(tmp_path / "e.json", [{"choices": [{"message": {"content": text}}]} for text in replies])
    found = values(
        score_file("mmhal", answers, BenchmarkOptions(data), judging=Judging(verdicts=theirs), resamples=100)
    )
    assert found["informativeness"] == pytest.approx(7 / 15)
    assert found["informativeness_official"] == pytest.approx(7 / 18)


def test_mmhals_merged_file_is_answers_and_verdicts(tmp_path: Path) -> None:
    """The file that the owners write with `gpt4_review`, in any order; RLHF-V's has the rows of its answer file."""
    data = mmhal_folder(tmp_path / "data", 3)
    replies = ["Rating: 5", "Rating: 1", "no idea"]
    merged = [
        {**row, "gpt4_review": text} for row, text in zip(mmhal_answers(data, "a", "b", "c"), replies, strict=True)
    ]
    numbered = [
        {"question_id": n, "prompt": row["question"], "text": row["model_answer"], "gpt4_review": row["gpt4_review"]}
        for n, row in enumerate(merged)
    ]
    for rows in (merged[::-1], numbered):
        file = write_json(tmp_path / "m.json", rows)
        found = values(score_file("mmhal", file, BenchmarkOptions(data), judging=Judging(verdicts=file), resamples=100))
        assert (found["score"], found["score_official"], found["score_attribute"]) == (3.0, 2.0, 5.0)


def test_rlaif_vs_answers_to_mmhal_are_read(tmp_path: Path) -> None:
    """Numbered from 0, the picture's address as its id, the question under `prompt`."""
    data = mmhal_folder(tmp_path / "data", 3)
    listed = mmhal_answers(data, "a", "b", "c")
    rows = [
        {"question_id": n, "image_id": row["image_src"], "prompt": row["question"], "text": f"t{n}", "model_id": "m"}
        for n, row in enumerate(listed)
    ]
    result = score("mmhal", data, rows[::-1])
    assert result.estimates["words"].n == 3 and len(result.notes) == 1  # that a judge is needed, and no unknown answer
    moved = [{**row, "image_id": "elsewhere.jpg"} for row in rows]
    assert score("mmhal", data, moved).estimates["words"].n == 3  # by number and question
    other = [{**row, "prompt": "What else?"} for row in moved]
    with pytest.raises(InputError, match="no answer matches a sample"):
        score("mmhal", data, other)


def llava_rows(*texts: str) -> list[dict[str, Any]]:
    return [{"question_id": number, "text": text} for number, text in enumerate(texts)]


def test_llava_bench_by_hand(tmp_path: Path) -> None:
    """(8, 6), (10, 5), (9, 9), unreadable: 20 / 27 of GPT-4; with -1 for both of the last as the owners do: 19 / 26."""
    data = llava_folder(tmp_path / "data")
    replies = {"zero": "8 6\nFine.", "one": "10,5", "two": "9 9", "three": "10, 10"}

    def compare(body: Body, number: int) -> Act:
        answer = re.findall(r"\[Answer 2\]\n(.*)\n", text_of(body))[0]
        return say(replies[answer])

    with serving(compare) as (url, heard):
        result, _ = graded("llava-bench", data, llava_rows(*replies), judge_at(url))
        assert any(
            "[Answer 1]\nReference 2.\n\n[End of answer 1]\n\n[Answer 2]\ntwo\n" in text for text in heard.texts()
        )
    found = values(result)
    assert found["all"] == pytest.approx(20 / 27) and found["all_official"] == pytest.approx(19 / 26)
    assert (found["conv"], found["detail"], found["complex"]) == (6 / 8, 0.5, 1.0)
    assert (found["model"], found["reference"], found["touched"]) == (20 / 3, 9.0, 1)


def test_llava_benchs_review_files_are_read(tmp_path: Path) -> None:
    data = llava_folder(tmp_path / "data")
    pairs = ([8.0, 6.0], [10.0, 5.0], [9.0, 9.0], [-1, -1])
    reviews = [
        {"id": n + 1, "question_id": n, "category": "llava_bench_conv", "tuple": pair} for n, pair in enumerate(pairs)
    ]
    reviews[0]["content"] = "8 6\nBoth were fine."
    file, answers = write_lines(tmp_path / "r.jsonl", reviews), write_lines(tmp_path / "a.jsonl", llava_rows(*"abcd"))
    found = values(
        score_file("llava-bench", answers, BenchmarkOptions(data), judging=Judging(verdicts=file), resamples=100)
    )
    assert found["all"] == pytest.approx(20 / 27) and found["all_official"] == pytest.approx(19 / 26)


def test_grades_of_a_review_go_before_its_text(tmp_path: Path) -> None:
    """A reply that could not be parsed is corrected by hand in `tuple`; older reviews have `score` alone."""
    data = llava_folder(tmp_path / "data")
    answers = write_lines(tmp_path / "a.jsonl", llava_rows(*"abcd"))
    pairs = ([8, 4], [10, 9], [10, 2], [5, 5])
    fixed = [
        {"question_id": n, "category": "llava_bench_conv", "tuple": pair, "content": "1 10\nNo."}
        for n, pair in enumerate(pairs)
    ]
    scores = [{"question_id": n, "score": pair, "text": "1 10"} for n, pair in enumerate(pairs)]
    for rows in (fixed, scores):
        file = write_lines(tmp_path / "r.jsonl", rows)
        found = values(
            score_file("llava-bench", answers, BenchmarkOptions(data), judging=Judging(verdicts=file), resamples=100)
        )
        assert found["all"] == found["all_official"] == pytest.approx(20 / 33)


def test_categories_in_the_official_form_count_unread_replies(tmp_path: Path) -> None:
    """Of conv, one reply is read (8 6) and one is not (-1 -1): 6 / 8, and 5 / 7 as the owners print it."""
    data = llava_folder(tmp_path / "data")
    answers = write_lines(tmp_path / "a.jsonl", llava_rows(*"abcd"))
    pairs = ([8, 6], [10, 5], [9, 9], [-1, -1])
    file = write_lines(tmp_path / "r.jsonl", [{"question_id": n, "tuple": pair} for n, pair in enumerate(pairs)])
    found = values(
        score_file("llava-bench", answers, BenchmarkOptions(data), judging=Judging(verdicts=file), resamples=100)
    )
    assert (found["conv"], found["conv_official"]) == (6 / 8, 5 / 7)
    assert (found["detail_official"], found["complex_official"], found["all_official"]) == (1 / 2, 1.0, 19 / 26)


MMVET = {"v1_0": "x = -1", "v1_1": "A mug.", "v1_2": "8", "v1_3": "a tower"}


def test_mm_vet_asks_again_and_counts_capabilities(tmp_path: Path) -> None:
    """0.5, 1.0, unreadable five times, 0.3: the mean is 1.8 / 3, the owners' 1.8 / 4."""
    data = mmvet_folder(tmp_path / "data")

    def grades(body: Body, number: int) -> Act:
        text = text_of(body)
        again = text.endswith("0.0 to 1.0: ")
        if "| 8 |" in text:
            return say("I cannot say")
        if "| A mug. |" in text:
            assert "a cup <OR> a mug" in text
            return say("1.0" if again else "Correct")
        return say("0.5" if "x = -1 |" in text else "0.3")

    rows = [{"question_id": int(key[3:]), "text": text} for key, text in MMVET.items()]
    with serving(grades) as (url, heard):
        result, costs = graded("mm-vet", data, rows, judge_at(url))
        assert len(heard.bodies) == 1 + 2 + 5 + 1
        assert len({body["seed"] for body in heard.bodies if "| 8 |" in text_of(body)}) == 5
    found = values(result)
    assert found["total"] == pytest.approx(0.6) and found["total_official"] == pytest.approx(0.45)
    shares = {name: found[name] for name in ("rec", "ocr", "math", "know")}
    assert shares == pytest.approx({"rec": 0.65, "ocr": 0.5, "math": 0.5, "know": 0.3})
    assert (found["just_ocr_math"], found["just_rec"], found["just_rec_know"]) == (0.5, 1.0, 0.3)
    assert found["touched"] == 1 and "9 calls" in costs[-1]


def test_mm_vets_grade_files_and_answers_by_id_are_read(tmp_path: Path) -> None:
    data, answers = mmvet_folder(tmp_path / "data"), write_json(tmp_path / "m.json", MMVET)
    scores = {"v1_0": [0.5, 0.4], "v1_1": [1.0, 1.0], "v1_2": [0.0, 0.0], "v1_3": [0.3, 0.5]}
    theirs = {key: {"model": ["g"] * 2, "content": list(map(str, s)), "score": s} for key, s in scores.items()}
    file = write_json(tmp_path / "grade.json", theirs)
    found = values(score_file("mm-vet", answers, BenchmarkOptions(data), judging=Judging(verdicts=file), resamples=100))
    assert found["total"] == pytest.approx((0.45 + 1 + 0 + 0.4) / 4)
    assert found["ocr"] == pytest.approx(0.225)
    # The runs' totals are 1.8 / 4 and 1.9 / 4; the owners divide by the number of runs, not by one less.
    assert (found["run_1"], found["run_2"]) == pytest.approx((0.45, 0.475))
    assert found["std"] == pytest.approx(0.0125)


def test_mm_vet_of_one_run_has_no_spread(tmp_path: Path) -> None:
    data, answers = mmvet_folder(tmp_path / "data"), write_json(tmp_path / "m.json", MMVET)
    file = write_json(tmp_path / "grade.json", {key: {"score": [0.5]} for key in MMVET})
    found = values(score_file("mm-vet", answers, BenchmarkOptions(data), judging=Judging(verdicts=file), resamples=100))
    assert found["total"] == 0.5 and not {"std", "run_1"} & found.keys()


def test_hallusionbench_with_its_judge(tmp_path: Path) -> None:
    from tests.evals.benches.test_hallusionbench import ROWS, TEXTS, answers

    write_json(tmp_path / "data/HallusionBench.json", ROWS)
    verdicts = {
        "w0": "unclear",
        "w1": "incorrect",
        "w2": "correct",
        "w3": "Correct.",
        "w4": "Incorrect",
        "w5": "correct",
    }

    def check(body: Body, number: int) -> Act:
        return say(verdicts.get(re.findall(r"Answer: (w\d)", text_of(body))[0], "hm"))

    rows = answers(ROWS, tuple(f"w{number}" for number in range(8)))
    with serving(check) as (url, _):
        result, _ = graded("hallusionbench", tmp_path / "data", rows, judge_at(url))
    found = values(result)
    assert found["aAcc"] == pytest.approx(4 / 6) and result.estimates["aAcc"].unscored == 2  # w6 and w7 got no verdict
    assert found["touched"] == 2 and found["fAcc"] == 1 / 2
    assert len(TEXTS) == 8


def test_a_judge_for_a_benchmark_of_rules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="answers to 'gqa' are scored by rule"):
        graded("gqa", tmp_path / "data", [{"id": "x", "answer": "y"}], judge_at("http://127.0.0.1:1/v1"))


def test_a_file_without_verdicts_is_refused(tmp_path: Path) -> None:
    data = mmhal_folder(tmp_path / "data")
    file = write_json(tmp_path / "a.json", mmhal_answers(data, *"abcdefgh"))
    with pytest.raises(InputError, match="holds no verdict"):
        score_file("mmhal", file, BenchmarkOptions(data), judging=Judging(verdicts=file))
