"""The lab's truth as judge and as writer: every text by its own rules, on scenes of the world."""

import numpy as np
import pytest

from sightline.lab.language import ReferenceNoise
from sightline.lab.oracle import mistakes, score
from sightline.lab.parser import judge, parse_claims
from sightline.lab.questions import draw_question
from sightline.lab.recipe.corpus import description
from sightline.lab.rewriting import rewrite
from sightline.lab.vocabulary import WorldConfig
from sightline.lab.world import Scene, SceneObject, sample_scene, scene_rng
from sightline.models.prompts import Prefix
from sightline.pairs.judges.base import Judged
from sightline.pairs.writers.base import Draft, Task

TRUE = ReferenceNoise(companion=0, absent_object=0, wrong_color=0, omitted=0)
WRONG = ReferenceNoise(companion=0.9, absent_object=0.5, wrong_color=0.3, omitted=0.3)
DESCRIBE = "Describe the image."
KITCHEN = Scene(
    "validation",
    0,
    "kitchen",
    (
        SceneObject("cup", "red", "medium", (4, 4, 30, 30), 1),
        SceneObject("pan", "blue", "medium", (60, 60, 90, 90), 2),
        SceneObject("pan", "blue", "medium", (4, 60, 30, 90), 3),
    ),
    0,
)


def about(answer: str, prompt: str = DESCRIBE, reference: str | None = None, scene: Scene = KITCHEN) -> Judged:
    return Judged(Prefix((), prompt), answer, reference, scene.to_truth())


def scored(answer: str, prompt: str = DESCRIBE, reference: str | None = None) -> float:
    verdict = score(about(answer, prompt, reference)).score
    assert verdict is not None
    return verdict


def wrong_in(text: str, scene: Scene) -> int:
    return mistakes(judge(parse_claims(text), scene))


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("A red cup and two blue pans.", 1.0),
        ("A red cup.", 0.5),
        ("Nothing else stands out.", 0.0),
        ("A blue cup and two blue pans.", 0.0),  # one color
        ("A red cup and three blue pans.", 0.0),  # one number
        ("A red cup, two blue pans and a spoon.", 0.0),  # one made up
        ("A blue cup and a green spoon.", -1.5),
    ],
)
def test_a_description_earns_what_it_names_and_loses_its_mistakes(answer: str, wanted: float) -> None:
    assert scored(answer) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("prompt", "reference", "right", "wrong"),
    [
        ("Is there a spoon?", "No, there is no spoon.", "No.", "Yes."),
        ("Is there a cup?", "Yes.", "Yes, there is a red cup.", "No."),
        ("How many pans are there?", "Two.", "There are 2 pans.", "Three."),
        ("What color is the cup?", "The cup is red.", "Red.", "Blue."),
        ("Where is the cup?", "At the top left.", "The cup is at the top left.", "On the left."),
    ],
)
def test_an_answer_to_a_question_is_right_or_wrong(prompt: str, reference: str, right: str, wrong: str) -> None:
    assert scored(right, prompt, reference) > 0 > scored(wrong, prompt, reference)


def test_what_cannot_be_known_is_unscored() -> None:
    assert score(Judged(Prefix((), DESCRIBE), "A cup.", None, {})).score is None
    assert score(about("Two.", "How many pans are there?")).score is None
    assert rewrite(Draft("correct", Judged(Prefix((), DESCRIBE), "A cup.", None, {}))).text is None


@pytest.mark.parametrize("task", ["corrupt", "alter", "correct"])
def test_tasks_do_what_they_say_on_scenes_of_the_world(task: Task) -> None:
    config, failed, tried = WorldConfig(), 0, 0
    for index in range(300):
        scene = sample_scene(config, "validation", index)
        rng = scene_rng(config, "validation", index, 77)
        (prompt, text), _ = description(rng, scene, WRONG if task == "correct" else TRUE)
        before = wrong_in(text, scene)
        if task == "correct" and not before:
            continue
        tried += 1
        draft = Draft(task, about(text, prompt, text, scene), seed=index)
        changed = rewrite(draft).text
        assert rewrite(draft).text == changed  # the seed decides
        if changed is None:
            failed += 1
        elif task == "correct":
            assert wrong_in(changed, scene) == 0
        else:
            assert wrong_in(changed, scene) > before
            assert len(changed.split()) == pytest.approx(len(text.split()), abs=4)
            if task == "alter":
                assert abs(len(changed) - len(text)) < 20 and changed.count(".") == text.count(".")
    assert tried > 200 and failed <= 0.04 * tried


def test_corruptions_are_of_the_theme_or_its_companions() -> None:
    texts = [rewrite(Draft("alter", about("A red cup and two blue pans."), seed)).text for seed in range(60)]
    kinds = {m.kind for text in texts for m in parse_claims(text or "").mentions} - {"cup", "pan"}
    assert kinds <= {"plate", "kettle", "spoon"} and kinds
    assert {"blue", "green"} <= {m.color for text in texts for m in parse_claims(text or "").mentions}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A red cup and a green spoon.", "A red cup and two blue pans."),  # what was left out takes the place
        ("A red cup, two blue pans and a green spoon.", "A red cup, two blue pans."),
        ("A blue cup and two blue pans.", "A red cup and two blue pans."),
        ("A red cup and three blue pans.", "A red cup and two blue pans."),
        ("A red cup and two blue pans. There is a green spoon.", "A red cup and two blue pans."),
        ("A red cup and two blue pans.", "A red cup and two blue pans."),
    ],
)
def test_corrections_by_hand(text: str, wanted: str) -> None:
    assert rewrite(Draft("correct", about(text))).text == wanted


def test_short_answers_are_spoiled_and_mended_too() -> None:
    config = WorldConfig()
    for index in range(100):
        scene = sample_scene(config, "validation", index)
        question = draw_question(np.random.default_rng(index), scene)
        if question.task in ("open", "relation"):
            continue
        asked = about(question.answer, question.text, question.answer, scene)
        assert (score(asked).score or 0) > 0
        spoiled = rewrite(Draft("corrupt", asked, index)).text
        if spoiled is not None:
            worse = about(spoiled, question.text, question.answer, scene)
            assert (score(worse).score or 0) < 1
            if (score(worse).score or 0) <= 0:
                assert rewrite(Draft("correct", worse)).text == question.answer


def test_claims_one_a_line() -> None:
    text = rewrite(Draft("split", about("A red cup and two blue pans, but no spoon."))).text
    assert text == "There is a red cup.\nThere are two blue pans."
