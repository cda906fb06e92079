"""Instruction data of mixed quality about scenes: conversations, details and complex questions, some of them bad.

A bad question presupposes an absent object and is answered all the same; a bad answer has one to three mistakes.
`InstructionNoise` sets their rates, and each sample carries the truth, so that filters can be evaluated. `samples`
writes them to disk.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from sightline.evals.yes_no import parse_yes_no
from sightline.lab.language import ObjectGroup, Speaker, object_groups, place_phrase
from sightline.lab.oracle_writer import spoil
from sightline.lab.questions import DESCRIBE_PROMPTS, color, count, position, spatial, yes_no
from sightline.lab.words import COLORS, THEMES, spoken_names
from sightline.lab.world import IMAGE_SIZE, Scene
from sightline.records import Sample, Turn

TYPES = ("conversation", "detail", "complex")
_TURNS = 2  # questions of a conversation


class InstructionNoise(BaseModel):
    """Rates of bad questions and answers, and the number of candidates per scene."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bad_questions: float = Field(ge=0, le=1, description="share of instructions that ask about what is not there")
    bad_answers: float = Field(ge=0, le=1, description="share of answers, of all others, with one to three mistakes")
    questions: int = Field(default=1, ge=1, description="instructions about a scene")
    answers: int = Field(default=1, ge=1, description="candidate answers to each")


def instructions(rng: np.random.Generator, scene: Scene, image: str, noise: InstructionNoise) -> Iterator[Sample]:
    """The candidates of one scene; those of one instruction differ only in their answers."""
    for number in range(noise.questions):
        kind = TYPES[int(rng.integers(len(TYPES)))]
        bad = bool(rng.random() < noise.bad_questions)
        turns = [_ask(rng, scene, kind, bad) for _ in range(_TURNS if kind == "conversation" else 1)]
        for candidate in range(noise.answers):
            texts = [_answer(rng, scene, true, bad, noise) for _, true in turns]
            history = [
                turn for (question, _), text in zip(turns, texts, strict=True) for turn in _as_turns(question, text)
            ]
            yield Sample(
                id=f"{scene.id}/{number}-{candidate}",
                images=(image,),
                history=tuple(history[:-2]),
                prompt=turns[-1][0],
                reference=texts[-1],
                task=kind,
                cluster=scene.id,
                truth={**scene.to_truth(), "answers": {} if bad else dict(turns)},
            )


def _as_turns(question: str, text: str) -> tuple[Turn, Turn]:
    return Turn(role="user", text=question), Turn(role="assistant", text=text)


def _ask(rng: np.random.Generator, scene: Scene, kind: str, bad: bool) -> tuple[str, str]:
    """A question of one type with its true answer; for a bad question the answer is made up too."""
    group = _absent(rng, scene) if bad else _one(rng, object_groups(scene))
    if kind == "detail":
        if not bad:
            return _pick(rng, DESCRIBE_PROMPTS), Speaker(rng).describe(scene.theme, object_groups(scene))
        name = _pick(rng, spoken_names(group.kind))
        place = place_phrase(group.where, rng)
        return f"Describe the {name} in the image.", f"The {name} is {group.color}. The {name} is {place}."
    if kind == "complex":
        singles = [one for one in object_groups(scene) if one.count == 1]
        other = [one for one in singles if one.kind != group.kind]
        related = spatial(rng, group, _one(rng, other)) if other and group.count == 1 else None
        question = related or position(rng, group)
        return question.text, question.answer
    if not bad and rng.random() < 0.4:
        question = yes_no(rng, scene, group.kind)
    else:
        question = color(rng, group) if rng.random() < 0.5 else count(rng, group)
    return question.text, question.answer


def _answer(rng: np.random.Generator, scene: Scene, true: str, bad: bool, noise: InstructionNoise) -> str:
    if bad or rng.random() >= noise.bad_answers:
        return true
    wrong = spoil(rng, true, scene)
    if wrong is None and true.split(".")[0].split(",")[0].lower() in ("yes", "no"):
        wrong = "No." if parse_yes_no(true) else "Yes."
    return wrong or f"{_pick(rng, tuple(COLORS)).capitalize()}."


def _absent(rng: np.random.Generator, scene: Scene) -> ObjectGroup:
    """A made-up object: an absent kind, of the scene's theme if possible."""
    near = [kind for kind in THEMES[scene.theme] if kind not in scene.kinds]
    kind = _pick(rng, near or [kind for kinds in THEMES.values() for kind in kinds if kind not in scene.kinds])
    x, y = (float(value) for value in rng.uniform(12, IMAGE_SIZE - 12, size=2))
    return ObjectGroup(kind, _pick(rng, tuple(COLORS)), 1, (x, y), False)


def _one(rng: np.random.Generator, groups: Sequence[ObjectGroup]) -> ObjectGroup:
    return groups[int(rng.integers(len(groups)))]


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
