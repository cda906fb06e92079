"""Rule-checkable wishes about descriptions (such as short or long, with or without colors) and their opposites.

A wish is one sentence in one of several wordings; `parse_rules` reads it back, `follows` checks a text, and
`describe_by_rules` writes a true description that follows it. The split into trained and held-out wishes is here;
`builders.conditioned` builds pairs of them, and `meta_benchmark` measures answers under them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sightline.builders.conditioned import WishContrast
from sightline.lab.language import Speaker, object_groups
from sightline.lab.parser import parse_claims
from sightline.lab.words import COLORS, COUNT_WORDS, KINDS, article
from sightline.lab.world import Scene
from sightline.records import Sample

LONG = 4  # sentences
CHEER = "What a lovely picture!"
#: Kinds that no trained wish names.
UNSEEN_KINDS = frozenset(KINDS[3::4])
#: Pairs of contradicting rules, by topic; the last topic is never trained on.
FAMILIES: dict[str, tuple[str, str]] = {
    "length": ("short", "long"),
    "color": ("colors", "plain"),
    "count": ("count", "no-count"),
    "object": ("avoid", "mention"),
    "tone": ("cheerful", "sober"),
}
TRAINED = ("length", "color", "count", "object")
#: Rule -> its wordings; the last of each is never trained on. `{kind}` is an object of the scene.
WORDINGS: dict[str, tuple[str, ...]] = {
    "short": ("Answer in one sentence.", "Keep it to one sentence.", "Be brief.", "I only read one sentence."),
    "long": ("Answer in four sentences.", "Write four sentences or more.", "Be long.", "I read four sentences gladly."),
    "colors": ("Tell every color.", "Name the color of each object.", "Say all colors.", "I like to hear of colors."),
    "plain": ("Tell no color.", "Name no color of any object.", "Say no colors.", "I never want to hear of colors."),
    "count": ("First count the objects.", "Begin with a number.", "Start by counting.", "I want a number first."),
    "no-count": ("Count no objects.", "Begin without a number.", "Do not start by counting.", "No number."),
    "avoid": ("Never mention the {kind}.", "Leave out the {kind}.", "Say nothing of the {kind}.", "I hate the {kind}."),
    "mention": ("Always mention the {kind}.", "Tell of the {kind}.", "Talk about the {kind}.", "I love the {kind}."),
    "cheerful": ("Sound cheerful.", "End with a cheer."),
    "sober": ("Sound sober.", "End without a cheer."),
}  # fmt: skip
_COUNTING = re.compile(rf"\bthere (?:is|are) (?:{'|'.join(COUNT_WORDS.values())}) objects?\b", re.IGNORECASE)
_COLOR = re.compile(rf"\b(?:{'|'.join(COLORS)})\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Rule:
    """A rule by name; `kind` is the object it names, if any."""

    name: str
    kind: str = ""


def parse_rules(wish: str) -> list[Rule]:
    """Parse the rules in a wish; sentences that are not a known wording are ignored."""
    return [_RULES[sentence] for sentence in sentences(wish) if sentence in _RULES]


def sentences(text: str) -> list[str]:
    """The sentences of a text."""
    return [part for part in _SENTENCE_END.split(text.strip()) if part]


def follows(rule: Rule, text: str) -> bool:
    """Whether a text follows a rule; an empty text follows none."""
    return bool(text.strip()) and _CHECKS[rule.name](text, rule.kind)


def describe_by_rules(rng: np.random.Generator, scene: Scene, rules: Sequence[Rule]) -> str | None:
    """A true description that follows all rules; None if they contradict each other or leave nothing to describe."""
    names, speaker = {rule.name for rule in rules}, Speaker(rng)
    avoided = {rule.kind for rule in rules if rule.name == "avoid"}
    groups = [group for group in object_groups(scene) if group.kind not in avoided]
    if not groups:
        return None
    text = speaker.summary(scene.theme, groups) if "short" in names else speaker.describe(scene.theme, groups)
    while "long" in names and len(sentences(text)) < LONG:
        text += " " + speaker.remark(groups)
    if "count" in names:
        number = len(scene.objects)
        text = f"There {'is' if number == 1 else 'are'} {COUNT_WORDS[number]} object{'s' * (number > 1)}. {text}"
    if "plain" in names:
        text = remove_colors(text)
    if "cheerful" in names:
        text += f" {CHEER}"
    return text if all(follows(rule, text) for rule in rules) else None


def remove_colors(text: str) -> str:
    """Remove color words from a text and fix the articles before them."""
    bare = re.sub(rf"\s*{_COLOR.pattern}", "", text, flags=re.IGNORECASE)
    mended = re.sub(
        r"\b(an?) (\w+)", lambda found: f"{_like(found[1], article(found[2]))} {found[2]}", bare, flags=re.I
    )
    return re.sub(r"(^|[.!?]\s+)\s*([a-z])", lambda found: found[1] + found[2].upper(), mended)


def draw_contrast(
    rng: np.random.Generator, scene: Scene, families: Sequence[str] = TRAINED, *, unseen: str = ""
) -> WishContrast | None:
    """Draw two contradicting wishes about a scene, in trained wordings and about trained kinds of object.

    `unseen` is the part never trained on: "object" (the kind), "wording", or "rule". None if the scene has no suitable
    object.
    """
    family = str(rng.choice({"object": ["object"], "rule": ["tone"]}.get(unseen, list(families))))
    kind = ""
    if family == "object":
        fitting = [k for k in sorted(scene.kinds) if (k in UNSEEN_KINDS) is (unseen == "object")]
        if not fitting or len(scene.kinds) < 2:
            return None
        kind = str(rng.choice(fitting))
    sides = []
    for rule in FAMILIES[family]:
        wordings = WORDINGS[rule]
        known = wordings if family == "tone" else wordings[:-1]
        wording = wordings[-1] if unseen == "wording" else str(rng.choice(known))
        sides.append(wording.format(kind=kind))
    return WishContrast(family, *sides)


def contrast_of(sample: Sample, rng: np.random.Generator) -> WishContrast | None:
    """Draw two contradicting trained wishes for a sample; None if it is not the lab's or has no suitable object."""
    if "objects" not in sample.truth:
        return None
    return draw_contrast(rng, Scene.from_truth(sample.truth))


def _has_every_color(text: str, _: str) -> bool:
    mentions = [mention for mention in parse_claims(text).mentions if not mention.negated]
    colored = {mention.kind for mention in mentions if mention.color is not None}
    return bool(mentions) and {mention.kind for mention in mentions} == colored


def _names(text: str, kind: str) -> bool:
    return any(mention.kind == kind for mention in parse_claims(text).mentions)


def _like(old: str, new: str) -> str:
    return new.capitalize() if old[0].isupper() else new


_CHECKS: dict[str, Callable[[str, str], bool]] = {
    "short": lambda text, _: len(sentences(text)) == 1,
    "long": lambda text, _: len(sentences(text)) >= LONG,
    "colors": _has_every_color,
    "plain": lambda text, _: _COLOR.search(text) is None,
    "count": lambda text, _: _COUNTING.match(text.strip()) is not None,
    "no-count": lambda text, _: _COUNTING.search(text) is None,
    "avoid": lambda text, kind: not _names(text, kind),
    "mention": _names,
    "cheerful": lambda text, _: "!" in text,
    "sober": lambda text, _: "!" not in text,
}
_RULES = {
    wording.format(kind=kind): Rule(name, kind if "{kind}" in wording else "")
    for name, wordings in WORDINGS.items()
    for wording in wordings
    for kind in (KINDS if "{kind}" in wording else ("",))
}
