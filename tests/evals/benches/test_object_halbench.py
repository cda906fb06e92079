"""Object HalBench by hand: with synonyms as the official script without a model, and names that a model extracted."""

import json
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import InputError
from sightline.evals.benches.coco_objects import halbench_vocabulary
from sightline.evals.benches.extracted_objects import match_objects, read_objects
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.offline_scoring import ScoredFile, score_file

VOCABULARY = halbench_vocabulary()


@pytest.mark.parametrize(
    ("reply", "names"),
    [
        ('```json\n["dog", "red car"]\n```', ["dog", "red car"]),
        ('Here they are:\n```\n[\n"dog"\n]\n```\nDone.', ["dog"]),
        ('The objects:\n["dog", "cat"]', ["dog", "cat"]),
        ("[]", []),
        ("```json\n[]\n```", []),
        ("None are visible.", None),
        ('["dog", 3]', None),
        ('["dog", ', None),
        ('{"objects": ["dog"]}', None),
    ],
)
def test_replies(reply: str, names: list[str] | None) -> None:
    assert read_objects(reply) == names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["dogs", "wooden table", "the two men"], [("dog", "dog"), ("table", "dining table"), ("man", "person")]),
        # A run of nouns is one thing, and a baseball player is none of the 80.
        (["baseball player"], []),
        (["young player"], [("player", "person")]),
        (["red traffic lights", "hot dog", "bow tie"], [("traffic light",) * 2, ("hot dog",) * 2, ("tie", "tie")]),
        # Every word once, but two words for one object are two.
        (["man", "man", "woman", "men"], [("man", "person"), ("woman", "person")]),
        (["toilet", "seat"], [("toilet", "toilet")]),
        (["toilet seat"], [("toilet", "toilet")]),
        (["seat"], [("seat", "chair")]),
        (["baby elephant"], [("elephant", "elephant")]),
        ([], []),
    ],
)
def test_names_become_objects(names: list[str], expected: list[tuple[str, str]]) -> None:
    assert [(found.word, found.object) for found in match_objects(names, VOCABULARY)] == expected


def test_every_synonym_of_several_words_is_a_double_word_and_synonyms_are_stripped(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("cake,  cheesecake\ndining table, table, coffee table\nremote, remote control\n")
    vocabulary = halbench_vocabulary(path)
    assert [m.word for m in vocabulary.mentions("a cheesecake on a coffee table by a remote control")] == [
        "cheesecake",
        "coffee table",
        "remote control",
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    images = [{"id": i, "file_name": f"COCO_val2014_{i:012d}.jpg"} for i in (1, 2, 3)]
    instances = {
        "images": images,
        "categories": [{"id": 1, "name": "person"}, {"id": 6, "name": "bus"}],
        "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 6}],
    }
    texts = [(1, "A woman feeds geese by a bench."), (2, "A bus."), (3, "Men at work.")]
    captions = {"images": images, "annotations": [{"image_id": i, "caption": text} for i, text in texts]}
    (folder / "annotations" / "instances_val2014.json").write_text(json.dumps(instances))
    (folder / "annotations" / "captions_val2014.json").write_text(json.dumps(captions))
    return folder


# Truth: 1 = {person, bird, bench}, 2 = {bus}, 3 = {} ("men" is no plural for WordNet).
ANSWERS: list[dict[str, Any]] = [
    # person, bench, dog, dog: 4 mentions, 2 absent; found person, bench; 10 words
    {"image_id": 1, "question": "?", "text": "Assistant: A woman on a bench. A dog, another dog."},
    # bus is known to WordNet's lemmatizer: 1 mention, found; 2 words
    {"image_id": 2, "question": "?", "text": "A bus."},
    # nothing; 3 words
    {"image_id": 3, "question": "?", "text": "Men at work."},
]


def scored(data: Path, rows: list[dict[str, Any]]) -> ScoredFile:
    path = data.parent / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return score_file("object-halbench", path, BenchmarkOptions(data), resamples=100)


def values(result: ScoredFile, *names: str) -> dict[str, float | None]:
    return {name: result.estimates[name].value for name in names}


def test_scores_by_hand_without_a_model(data: Path) -> None:
    result = scored(data, ANSWERS)
    shares = values(result, "chair_s", "chair_s_refine", "chair_i", "obj_rec", "avg_word_len")
    assert shares == {
        "chair_s": 1 / 3,
        "chair_s_refine": 1 / 2,
        "chair_i": 2 / 5,
        "obj_rec": 3 / 4,
        "avg_word_len": pytest.approx((9 + 2 + 3) / 3),
    }
    counts = values(result, "coco_sentence_num", "coco_word_count", "gt_word_count")
    assert counts == {"coco_sentence_num": 2, "coco_word_count": 3, "gt_word_count": 4}


def test_with_the_official_list_its_questions_are_asked_and_missed(data: Path) -> None:
    rows = [{"image_id": i, "question": f"Describe picture {i}."} for i in (2, 1)]
    (data / "obj_halbench_300_with_image.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = scored(data, ANSWERS[:1])
    assert (result.estimates["chair_s"].n, result.estimates["chair_s"].unscored) == (1, 1)
    assert "1 of 2 samples have no answer and are unscored" in result.notes


def test_a_question_on_an_unknown_picture_is_named(data: Path) -> None:
    (data / "obj_halbench_300.jsonl").write_text('{"image_id": 9, "question": "?"}\n')
    with pytest.raises(InputError, match=r"obj_halbench_300\.jsonl line 1: .* \(image_id 9\)"):
        scored(data, ANSWERS)
