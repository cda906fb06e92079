"""Pairs of graded candidates: every unequal two by hand, spoiled copies, and people's grades."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.builders.build import BuildPlan, build_dataset
from sightline.data.labels import ITEMS, RaterFile
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import Shard, read_samples, write_samples
from sightline.errors import InputError
from sightline.lab.samples import ScenesConfig, lab_samples
from sightline.models.context import RunContext
from sightline.recipes.curation.conversations import QUESTION_REQUEST
from sightline.recipes.curation.graded import GRADED, GradedConfig, build_graded, gather, spoiled_copy, unequal_pairs
from sightline.records import Grade, Pair, Sample, write_rows
from sightline.records.ratings import AnswerAnnotation, LabelItem, RatedAnswer, Rating
from tests.builders.builders import assert_goes_on

ORACLE: dict[str, Any] = {"by": "answers", "judge": {"name": "oracle"}, "augment": 0.0}
NOISE = {"bad_questions": 0.4, "bad_answers": 0.5, "questions": 3, "answers": 2}


@pytest.fixture(scope="module")
def graded_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("candidates")
    write_samples(folder, lab_samples(ScenesConfig.model_validate({"instructions": NOISE}), "preference", 6, folder))
    return folder


def pairs_of(folder: Path, samples: list[Sample], **changes: Any) -> list[Pair]:
    config = GradedConfig.model_validate({**ORACLE, **changes})
    return [
        pair
        for results in build_graded(gather(samples), RunContext(folder, folder, 0), config)
        for pair in results.pairs
    ]


@given(st.lists(st.integers(0, 9), max_size=8))
def test_every_unequal_two_once(scores: list[int]) -> None:
    found = unequal_pairs([score / 10 for score in scores])
    ties = sum(scores[i] == scores[j] for i in range(len(scores)) for j in range(i))
    assert len(found) == len(set(found)) == len(scores) * (len(scores) - 1) // 2 - ties
    assert all(scores[i] > scores[j] for i, j in found)


def test_seven_questions_by_hand() -> None:
    """The form of the authors' annotation: seven candidates in tenths; of 21 twos one is a tie."""
    assert len(unequal_pairs([0.5, 0.45, 0.9, 0.0, 0.1, 0.45, 0.7])) == 20


@given(st.text(st.sampled_from("ab c"), max_size=20), st.integers(0, 50))
def test_a_spoiled_copy_is_another_text_of_the_same_words(text: str, seed: int) -> None:
    results = spoiled_copy(np.random.default_rng(seed), text)
    if results is not None:
        assert results != " ".join(text.split()) and results
        words = text.split()
        for word in results.split():
            words.remove(word)


def test_grades_of_people_order_the_answers_of_a_question(tmp_path: Path) -> None:
    """Three answers to one question, two to another, one ungraded: two and three pairs, none across questions."""
    samples = [
        Sample(id=f"s{number}", prompt=prompt, reference=f"Answer {number}.", cluster="scene")
        for number, prompt in enumerate(["Q1", "Q1", "Q1", "Q2", "Q2"])
    ]
    grades = [Grade(sample_id=f"s{number}", scores={"fit": score}) for number, score in enumerate([3, 1, 1, 2])]
    write_rows(tmp_path / "grades.jsonl", [*grades, Grade(sample_id="s1", rater="bob", scores={"fit": 1.0})])
    results = pairs_of(tmp_path, samples, judge=None, grades=tmp_path / "grades.jsonl")
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in results] == [
        ("Q1", "Answer 0.", "Answer 1."),
        ("Q1", "Answer 0.", "Answer 2."),
    ]
    questions = pairs_of(tmp_path, samples, by="questions", judge=None, grades=tmp_path / "grades.jsonl")
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in questions] == [(QUESTION_REQUEST, "Q1", "Q2")]


def test_both_answers_of_a_given_pair_are_graded_by_name(tmp_path: Path) -> None:
    sample = Sample(id="p", prompt="Q", reference="A cup.", truth={"rejected": "A pan."})
    grades = [
        Grade(sample_id="p", answer_id=name, scores={"fit": value}) for name, value in (("chosen", 1), ("rejected", 4))
    ]
    write_rows(tmp_path / "grades.jsonl", grades)
    (pair,) = pairs_of(tmp_path, [sample], judge=None, grades=tmp_path / "grades.jsonl")
    assert (pair.chosen, pair.rejected) == ("A pan.", "A cup."), "the people say otherwise than the set"


def test_a_directory_of_labels_is_read_as_it_is(tmp_path: Path) -> None:
    """Two raters of one pair: the mean over them decides, by the criterion that is asked for."""
    answers = (RatedAnswer(id="chosen", text="A cup."), RatedAnswer(id="rejected", text="A pan."))
    item = LabelItem(id="i", sample_id="p", prompt="Q", first=answers[0], second=answers[1])
    write_rows(tmp_path / "labels" / ITEMS, [item])
    for rater, (one, two) in {"ann": (5, 4), "bob": (1, 4)}.items():
        noted = [AnswerAnnotation(grades={"fit": grade, "style": 9 - grade}) for grade in (one, two)]
        file = RaterFile.open(tmp_path / "labels", rater)
        file.add(Rating(item="i", rater=rater, verdict="skip", first=noted[0], second=noted[1]))
    sample = Sample(id="p", prompt="Q", reference="A cup.", truth={"rejected": "A pan."})
    people = {"judge": None, "grades": tmp_path / "labels"}
    (by_fit,) = pairs_of(tmp_path, [sample], criteria={"fit": 1.0}, **people)
    (by_style,) = pairs_of(tmp_path, [sample], criteria={"style": 1.0}, **people)
    assert (by_fit.chosen, by_style.chosen) == ("A pan.", "A cup.")
    assert (by_fit.provenance["chosen_score"], by_fit.provenance["rejected_score"]) == (4.0, 3.0)
    with pytest.raises(InputError, match=r"no row has the criteria depth; there are: fit, style"):
        pairs_of(tmp_path, [sample], criteria={"depth": 1.0}, **people)


@pytest.mark.parametrize("by", ["questions", "answers"])
def test_the_better_by_the_truth_is_chosen_and_a_quarter_meets_its_spoiled_copy(by: str, graded_dir: Path) -> None:
    samples = list(read_samples(graded_dir))
    plain = pairs_of(graded_dir, samples, by=by)
    assert plain and all(pair.provenance["chosen_score"] > pair.provenance["rejected_score"] for pair in plain)
    assert all((pair.prompt == QUESTION_REQUEST) is (by == "questions") for pair in plain)
    full = pairs_of(graded_dir, samples, by=by, augment=1.0)
    quarter = pairs_of(graded_dir, samples, by=by, augment=0.25)
    spoiled, some = ([p for p in results if p.provenance.get("spoiled")] for results in (full, quarter))
    assert 0 < len(some) < len(spoiled) and len(full) == len(plain) + len(spoiled)
    assert {(p.chosen, p.rejected) for p in some} <= {(p.chosen, p.rejected) for p in spoiled}


def test_pictures_are_whole_in_shards_and_after_a_stop(graded_dir: Path, model_dir: Path, tmp_path: Path) -> None:
    config = GradedConfig.model_validate(ORACLE)
    whole = assert_goes_on(GRADED, config, model_dir, graded_dir, tmp_path)
    assert whole.counts["samples"] == 6, "a row is a picture"
    for index in range(2):
        build_dataset(BuildPlan(GRADED, config, shard=Shard(index, 2)), None, graded_dir, tmp_path / f"part{index}")
    parts = sorted((p for index in range(2) for p in read_pairs(tmp_path / f"part{index}")), key=lambda pair: pair.id)
    assert parts == list(read_pairs(tmp_path / "whole"))
