"""Questions about a scene with true answers, and the prompts that ask for descriptions.

Used for the VLM's instruction data and, with other seeds, for preference and test samples; `benches` has the scoring.
"""

from collections.abc import Sequence

import numpy as np

from sightline.lab.language import (
    LabQuestion,
    ObjectGroup,
    Speaker,
    object_groups,
    place_phrase,
    relation,
    relation_phrase,
)
from sightline.lab.parser import parse_claims
from sightline.lab.words import COUNT_WORDS, KINDS, THEME_PHRASES, article, plural, spoken_names
from sightline.lab.world import Scene

DESCRIBE_PROMPTS = (
    "Describe the image.",
    "Describe this picture in detail.",
    "Please describe what you see.",
    "What does the image show?",
    "Tell me about this scene.",
)
_PRESUMING_NOTHING = ("Is there", "Can you see")
CAPTION_PROMPTS = ("Give a short caption.", "Caption this image.", "Describe the image in one sentence.")


def yes_no(rng: np.random.Generator, scene: Scene, kind: str) -> LabQuestion:
    """`Is there a cup in the image?` with a short or a full answer."""
    name = _pick(rng, spoken_names(kind))
    a = f"{article(name)} {name}"
    text = _pick(rng, (f"Is there {a} in the image?", f"Is there {a}?", f"Can you see {a} in the picture?"))
    group = next((g for g in object_groups(scene) if g.kind == kind), None)
    if group is None:
        answer = _pick(rng, ("No.", f"No, there is no {name}.", f"No, I do not see {a}."))
    else:
        answer = _pick(rng, ("Yes.", f"Yes, there {_be(group)} {Speaker(rng).phrase(group)}."))
    return LabQuestion("yes-no", text, answer, kind)


def count(rng: np.random.Generator, group: ObjectGroup) -> LabQuestion:
    """`How many cups are there?`"""
    name = _pick(rng, spoken_names(group.kind))
    noun = plural(name) if group.count != 1 else name
    text = _pick(rng, (f"How many {plural(name)} are there?", f"How many {plural(name)} can you see?"))
    number = COUNT_WORDS[group.count]
    answer = _pick(rng, (f"{number.capitalize()}.", f"There {_be(group)} {number} {noun}."))
    return LabQuestion("count", text, answer, group.kind)


def color(rng: np.random.Generator, group: ObjectGroup) -> LabQuestion:
    """`What color is the cup?`"""
    name = _pick(rng, spoken_names(group.kind))
    noun, be = (plural(name), "are") if group.count > 1 else (name, "is")
    text = _pick(rng, (f"What color {be} the {noun}?", f"Which color {be} the {noun}?"))
    answer = _pick(rng, (f"{group.color.capitalize()}.", f"The {noun} {be} {group.color}."))
    return LabQuestion("color", text, answer, group.kind)


def position(rng: np.random.Generator, group: ObjectGroup) -> LabQuestion:
    """`Where is the cup?`, answered by a third of the picture in each direction; for single objects only."""
    name = _pick(rng, spoken_names(group.kind))
    text = _pick(rng, (f"Where is the {name}?", f"Where in the image is the {name}?"))
    place = place_phrase(group.where, rng)
    answer = _pick(rng, (f"{place[0].upper()}{place[1:]}.", f"The {name} is {place}."))
    return LabQuestion("position", text, answer, group.kind)


def spatial(rng: np.random.Generator, a: ObjectGroup, b: ObjectGroup) -> LabQuestion | None:
    """`Is the cup to the left of the plate?`; None if the two are too close."""
    truth = relation(a.where, b.where)
    if truth is None:
        return None
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[truth]
    stated = truth if rng.random() < 0.5 else opposite
    one, other = _pick(rng, spoken_names(a.kind)), _pick(rng, spoken_names(b.kind))
    text = f"Is the {one} {relation_phrase(stated, 'the ' + other, rng)}?"
    if stated == truth:
        answer = _pick(rng, ("Yes.", f"Yes, the {one} is {relation_phrase(truth, 'the ' + other, rng)}."))
    else:
        answer = _pick(rng, ("No.", f"No, the {one} is {relation_phrase(truth, 'the ' + other, rng)}."))
    return LabQuestion("relation", text, answer, a.kind)


def place(rng: np.random.Generator, scene: Scene) -> LabQuestion:
    """`What kind of place is this?`"""
    text = _pick(rng, ("What kind of place is this?", "Where was this picture taken?"))
    where = _pick(rng, THEME_PHRASES[scene.theme])
    return LabQuestion("open", text, _pick(rng, (f"It looks like {article(where)} {where}.", f"A {where}.")), "")


def draw_question(rng: np.random.Generator, scene: Scene) -> LabQuestion:
    """Draw a question of any task, mixed as in instruction data; absent kinds are drawn uniformly."""
    groups = object_groups(scene)
    singles = [g for g in groups if g.count == 1]
    roll = rng.random()
    group = groups[int(rng.integers(len(groups)))]
    if roll < 0.2:
        return yes_no(rng, scene, group.kind)
    if roll < 0.4:
        absent = [k for k in KINDS if k not in scene.kinds]
        return yes_no(rng, scene, absent[int(rng.integers(len(absent)))])
    if roll < 0.57:
        return count(rng, group)
    if roll < 0.75:
        return color(rng, group)
    if roll < 0.9 and singles:
        return position(rng, singles[int(rng.integers(len(singles)))])
    if roll < 0.96 and len(singles) > 1:
        first, second = rng.permutation(len(singles))[:2]
        return spatial(rng, singles[first], singles[second]) or place(rng, scene)
    return place(rng, scene)


def question_score(text: str, scene: Scene) -> float:
    """Score a question from 0 to 1: 0 if it presupposes absent objects, higher the more of the scene it covers."""
    if text in (*DESCRIBE_PROMPTS, *CAPTION_PROMPTS):
        return 1.0
    kinds = {mention.kind for mention in parse_claims(text).mentions}
    if not kinds - scene.kinds or text.startswith(_PRESUMING_NOTHING):
        return 0.5 + 0.4 * len(kinds & scene.kinds) / len(scene.kinds)
    return 0.0


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _be(group: ObjectGroup) -> str:
    return "are" if group.count > 1 else "is"
