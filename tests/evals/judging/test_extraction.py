"""Object HalBench with a model that lists objects, by hand: a real server on loopback, replies kept and read again."""

import json
import re
from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.judging.judged_scoring import Judging, check_anchors
from sightline.evals.offline_scoring import score_file
from sightline.evals.registry import get_benchmark
from tests.evals.benches.official_files import values
from tests.evals.judging.conftest import graded, judge_at
from tests.judges.local_server import Act, Body, say, serving, status, text_of

TRUTH = {"1": ["person", "dog"], "2": ["cat"], "3": ["car"], "4": ["bus"], "5": ["cup"]}
LISTS = {
    # man, dog, kite: 3 words, 1 absent; found person, dog
    1: '```json\n["young man", "dogs", "dog", "kite", "sky"]\n```',
    # cat: found
    2: 'Listed:\n["cat"]',
    3: "failed",
    4: "I cannot tell.",
}
ROWS = [
    {"image_id": number, "question": "Describe it.", "text": f"Assistant: This is the answer number {number}."}
    for number in LISTS
]
SHORT = {"image_id": 5, "question": "Describe it.", "text": "A big dog."}  # three words: names nothing


def lists(body: Body, number: int) -> Act:
    found = re.search(r"answer number (\d)", text_of(body))
    reply = LISTS[int(found[1])] if found else '["dog"]'
    return status(500, {}) if reply == "failed" else say(reply)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "truth.json").write_text(json.dumps(TRUTH))
    return tmp_path / "data"


def test_scores_by_hand(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with serving(lists) as (url, heard):
        result, costs = graded("object-halbench", data, [*ROWS, SHORT], judge_at(url), out=out)
        prompts = heard.texts()
    found = values(result)
    assert found["chair_i"] == 1 / 4 and found["obj_rec"] == 3 / 4  # of 2 + 1 + 1 objects
    assert found["chair_s_refine"] == 1 / 2 and found["chair_s"] == 1 / 3
    assert found["avg_word_len"] == (4 * 6 + 3) / 5
    # The failed call and the reply without a list are unscored, never zero.
    assert (result.estimates["chair_i"].n, result.estimates["chair_i"].unscored) == (3, 2)
    assert costs[-1].endswith("unscored: 1 failed, 1 unreadable of 5")
    assert sum("answer number 4" in text for text in prompts) == 3  # an unreadable reply is asked for again
    assert all("Question: Please describe this image in detail.\n\nAnswer: " in text for text in prompts)
    # What was said is kept: scored again without a server.
    answers = data.parent / "object-halbench.jsonl"
    verdicts = out / "object-halbench" / "verdicts.jsonl"
    again = score_file(
        "object-halbench", answers, BenchmarkOptions(data), judging=Judging(verdicts=verdicts), resamples=100
    )
    assert values(again) == found


def test_without_a_model_the_note_says_how(data: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({**SHORT, "image_id": 1}) + "\n")
    result = score_file("object-halbench", answers, BenchmarkOptions(data), resamples=100)
    assert values(result)["obj_rec"] == 1 / 2 and "--judge JUDGE.yaml" in result.notes[0]


def test_a_model_that_only_lists_has_no_anchors(data: Path, tmp_path: Path) -> None:
    benchmark = get_benchmark("object-halbench", BenchmarkOptions(data))
    with serving(lambda body, number: say('["dog"]')) as (url, _), pytest.raises(InputError, match="remove --anchors"):
        check_anchors(benchmark, Judging(judge_at(url)), tmp_path)


def hall_file(path: Path, *sentences: tuple[int, str, list[tuple[str, str]]]) -> Path:
    """What the owners' script writes: what it found in each answer, and its figures."""
    rows = [
        {
            "image_id": image,
            "caption": text,
            "mscoco_hallucinated_words": [],
            "mscoco_gt_words": [],
            "mscoco_generated_words": found,
            "words": [word for word, _ in found] + ["sky"],
            "metrics": {},
        }
        for image, text, found in sentences
    ]
    path.write_text(json.dumps({"sentences": rows, "overall_metrics": {"CHAIRs": 0.5}}, indent=4))
    return path


def test_the_owners_file_is_answers_and_verdicts(data: Path, tmp_path: Path) -> None:
    """Mentions as found there: dog, man, kite, dog of 1 (one absent), orange chair's none of 2, a second answer to 1.

    Found: dog and person of 2, none of 1 (cat), dog of 2; a word that our list lacks goes by the file's object.
    """
    file = hall_file(
        tmp_path / "hall_answers_-1.json",
        (1, "A young fellow, dogs, a kite.", [("dog", "dog"), ("fellow", "person"), ("kite", "kite"), ("dog", "dog")]),
        (2, "An orange chair.", []),
        (1, "Dogs.", [("dog", "dog")]),
    )
    result = score_file("object-halbench", file, BenchmarkOptions(data), judging=Judging(verdicts=file), resamples=100)
    found = values(result)
    assert (found["chair_i"], found["obj_rec"]) == (1 / 5, 3 / 5)
    assert (found["chair_s_refine"], found["chair_s"], found["coco_sentence_num"]) == (1 / 2, 1 / 3, 2)
    # Without the verdicts, the same file's answers are read by synonyms.
    assert values(score_file("object-halbench", file, BenchmarkOptions(data), resamples=100))["coco_sentence_num"] == 3
