"""Instruction data of mixed quality: as much of it is bad as was asked for, and the truth beside it tells which."""

from pathlib import Path
from typing import Any

import pytest

from sightline.lab.instructions import TYPES
from sightline.lab.oracle import score
from sightline.lab.questions import question_score
from sightline.lab.samples import ScenesConfig, lab_samples
from sightline.lab.world import Scene, SceneObject
from sightline.recipes.curation.conversations import answer_input, question_input, split_turns
from sightline.records import Sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenes")


def drawn(folder: Path, count: int, **noise: Any) -> list[Sample]:
    config = ScenesConfig.model_validate({"instructions": {"bad_questions": 0, "bad_answers": 0, **noise}})
    return list(lab_samples(config, "preference", count, folder))


def grades(folder: Path, sample: Sample) -> list[tuple[float, float | None]]:
    """(question, answer) of each turn by the lab's truth."""
    return [
        (
            score(question_input(sample, folder, turn.question)).score or 0.0,
            score(answer_input(sample, folder, turn, turn.answer)).score,
        )
        for turn in split_turns(sample)
    ]


def test_without_noise_all_is_right(folder: Path) -> None:
    samples = drawn(folder, 60)
    assert {sample.task for sample in samples} == set(TYPES)
    for sample in samples:
        assert len(split_turns(sample)) == (2 if sample.task == "conversation" else 1)
        for question, answer in grades(folder, sample):
            assert question > 0.5 and answer is not None and answer > 0, sample


def test_bad_questions_are_about_what_is_not_there(folder: Path) -> None:
    pairs = [grade for sample in drawn(folder, 40, bad_questions=1) for grade in grades(folder, sample)]
    assert max(question for question, _ in pairs) == 0.0


def test_bad_answers_are_wrong(folder: Path) -> None:
    answers = [answer for sample in drawn(folder, 60, bad_answers=1) for _, answer in grades(folder, sample)]
    right = [answer for answer in answers if answer is not None and answer > 0.99]
    assert len(right) < 0.05 * len(answers), "now and then a mistake says the same"


def test_candidates_differ_in_their_answers_alone(folder: Path) -> None:
    samples = drawn(folder, 20, bad_answers=0.5, questions=2, answers=3)
    assert len(samples) == 120 and len({sample.id for sample in samples}) == 120
    for start in range(0, 120, 3):
        by_candidate = [[turn.question for turn in split_turns(sample)] for sample in samples[start : start + 3]]
        assert by_candidate[0] == by_candidate[1] == by_candidate[2]
    assert samples == drawn(folder, 20, bad_answers=0.5, questions=2, answers=3)


def test_questions_by_hand() -> None:
    boxes = {"cup": (0, 0, 20, 20), "pan": (40, 40, 60, 60)}
    objects = tuple(SceneObject(kind, "red", "medium", box, 0) for kind, box in boxes.items())
    scene = Scene("test", 0, "kitchen", objects, 0)
    assert question_score("Describe the image.", scene) == 1.0
    assert question_score("What color is the mug?", scene) == pytest.approx(0.7), "one of two kinds"
    assert question_score("What color is the boat?", scene) == 0.0
    assert question_score("Is there a boat in the image?", scene) == 0.5, "asks, and presumes nothing"
    assert question_score("Is the cup above the pan?", scene) == pytest.approx(0.9)
