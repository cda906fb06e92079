"""Instruction rows of the lab: conversations about a scene, with and without its picture.

A row is one user turn and its answer, or several short questions in a row, as in LLaVA's own instruction data.
"""

import numpy as np

from sightline.lab.language import ReferenceNoise, Speaker, groups_of, noisy_groups
from sightline.lab.questions import CAPTION_PROMPTS, DESCRIBE_PROMPTS, draw_question
from sightline.lab.world import Scene

QUESTIONS = 6  # turns of a round; one picture serves them all
Turn = tuple[str, str]  # what the user says, what the assistant answers
Conversation = tuple[Turn, ...]


def description(rng: np.random.Generator, scene: Scene, noise: ReferenceNoise) -> tuple[Turn, list[str]]:
    """A prompt, an imperfect reference description, and the kinds it names though absent."""
    told, absent = noisy_groups(rng, scene.theme, groups_of(scene), noise)
    prompt = DESCRIBE_PROMPTS[int(rng.integers(len(DESCRIBE_PROMPTS)))]
    return (prompt, Speaker(rng).describe(scene.theme, told)), absent


def caption(rng: np.random.Generator, scene: Scene) -> Turn:
    """A prompt and a one-sentence caption."""
    prompt = CAPTION_PROMPTS[int(rng.integers(len(CAPTION_PROMPTS)))]
    return prompt, Speaker(rng).caption(scene.theme, groups_of(scene))


def conversation(rng: np.random.Generator, scene: Scene, noise: ReferenceNoise, described: float) -> Conversation:
    """One row: a description, or a round of questions about the scene, now and then with a caption first."""
    if rng.random() < described:
        return (description(rng, scene, noise)[0],)
    turns = [caption(rng, scene)] if rng.random() < 0.3 else []
    while len(turns) < QUESTIONS:
        question = draw_question(rng, scene)
        turns.append((question.text, question.answer))
    return tuple(turns)
