"""The lab's ground truth as a writer (`writers.writer`): adds plausible mistakes to a text, or removes mistakes.

It edits the words of single mentions found by the parser and leaves the rest unchanged. Made-up kinds are companions or
of the scene's theme, following the world's prior.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sightline.lab.language import ObjectGroup, object_groups
from sightline.lab.oracle import is_description, mistakes, score
from sightline.lab.parser import ParsedMention, judge, parse_claims
from sightline.lab.wishes import describe_by_rules, parse_rules
from sightline.lab.words import COLORS, COMPANION, COUNT_WORDS, KINDS, THEMES, all_names, article, plural, spoken_names
from sightline.lab.world import Scene
from sightline.writers.writer import WriterTask, Written

_MOST = 3  # most mistakes per corruption


@dataclass(frozen=True)
class _Edit:
    """A replacement of characters `[start, end)`; the article before it is adjusted."""

    start: int
    end: int
    text: str


def rewrite(draft: WriterTask) -> Written:
    """Do a draft's task from its scene's truth; the text is None if no rule applies."""
    if "objects" not in draft.about.truth:
        return Written(None, note="the sample has no truth of the lab")
    scene, text = Scene.from_truth(draft.about.truth), draft.about.answer
    if draft.task == "follow":
        description = describe_by_rules(np.random.default_rng(draft.seed), scene, parse_rules(draft.beside))
        return Written(description, note="" if description else "nothing true can be told by these wishes")
    if draft.task == "restyle":
        restyled = _restyle(np.random.default_rng(draft.seed), text)
        return Written(restyled, note="" if restyled else "nothing in it has another name")
    if draft.task == "review":
        return Written("yes" if _same_claims(text, draft.beside) else "no")
    if draft.task == "split":
        claims = [text[m.start : m.end] for m in parse_claims(text).mentions if not m.negated]
        return Written("\n".join(_claim_sentence(claim) for claim in claims) or None)
    if draft.task == "correct":
        if draft.about.reference and not is_description(draft.about.prefix.prompt):
            aspects = score(draft.about).aspects
            return Written(draft.about.reference if aspects.get("mistakes") else text)
        mended = _correct(text, scene)
        return Written(mended, note="" if mended else "what is wrong cannot be taken out by rule")
    rng = np.random.default_rng(draft.seed)
    wrong = _corrupt(rng, text, scene, 1) if draft.task == "alter" else spoil(rng, text, scene)
    return Written(wrong, note="" if wrong else "nothing in it can be made wrong by rule")


def spoil(rng: np.random.Generator, text: str, scene: Scene) -> str | None:
    """Add one to three mistakes to the text; None if no rule applies."""
    return _corrupt(rng, text, scene, int(rng.integers(1, _MOST + 1)))


def _restyle(rng: np.random.Generator, text: str) -> str | None:
    """Replace objects' names by synonyms; None if no named object has one."""
    changed = text
    for mention in sorted(parse_claims(text).mentions, key=lambda mention: -mention.start):
        found = _noun(changed, mention)
        names = [
            name
            for name in dict.fromkeys(spoken_names(mention.kind))
            if found and not _ends_with(changed, mention, name)
        ]
        if found is not None and names:
            start, many = found
            name = str(rng.choice(names))
            changed = _apply(changed, _Edit(start, mention.end, plural(name) if many else name))
    return changed if changed != text else None


def _ends_with(text: str, mention: ParsedMention, name: str) -> bool:
    return text[: mention.end].lower().endswith((name, plural(name)))


def _same_claims(text: str, other: str) -> bool:
    """Whether two texts make the same claims about the same objects, in any order."""

    def claims(passage: str) -> list[tuple[str, int, str, bool]]:
        return sorted((m.kind, m.count or 0, m.color or "", m.negated) for m in parse_claims(passage).mentions)

    return bool(other.strip()) and claims(text) == claims(other)


def _corrupt(rng: np.random.Generator, text: str, scene: Scene, most: int) -> str | None:
    """Make up to `most` true mentions wrong, last first so that offsets stay valid."""
    claims = parse_claims(text)
    verdict = judge(claims, scene)
    true = [m for m in claims.mentions if not m.negated and m.kind in verdict.mentioned]
    some = sorted((true[i] for i in rng.permutation(len(true))[:most]), key=lambda m: -m.start)
    if not true:
        return _swap_word(rng, text)
    changed = text
    for mention in some:
        taken = set(scene.kinds) | {named.kind for named in parse_claims(changed).mentions}
        edits = list(_wrong_edits(rng, changed, mention, scene, taken))
        if edits:
            changed = _apply(changed, edits[int(rng.integers(len(edits)))])
    return changed if mistakes(judge(parse_claims(changed), scene)) > mistakes(verdict) else None


def _swap_word(rng: np.random.Generator, text: str) -> str | None:
    """In a short answer without objects, replace the first yes or no, color, number or direction."""
    for words in (("yes", "no"), tuple(COLORS), tuple(COUNT_WORDS.values()), ("left", "right"), ("top", "bottom")):
        if found := re.search(rf"\b({'|'.join(words)})\b", text, re.IGNORECASE):
            other = str(rng.choice([word for word in words if word != found[0].lower()]))
            rest = _affirm(text[found.end() :]) if other == "yes" else text[found.end() :]
            return _apply(text[: found.end()] + rest, _Edit(found.start(), found.end(), other))
    return None


def _affirm(text: str) -> str:
    """Remove negations: `there is no cup` -> `there is a cup`, `I do not see` -> `I see`."""
    changed = re.sub(r"\bno (\w+)", lambda found: f"{article(found[1])} {found[1]}", text)
    return changed.replace("do not see", "see")


def _wrong_edits(
    rng: np.random.Generator, text: str, mention: ParsedMention, scene: Scene, taken: set[str]
) -> Iterator[_Edit]:
    """Edits that make a true mention wrong: one each for kind, color and number."""
    noun = _noun(text, mention)
    if noun is not None:
        start, many = noun
        near = [COMPANION[k] for k in sorted(scene.kinds) if k in COMPANION] + list(THEMES[scene.theme])
        candidates = [k for k in near if k not in taken] or [k for k in KINDS if k not in taken]
        kind = str(rng.choice(candidates))
        yield _Edit(start, mention.end, plural(kind) if many else kind)
    words = text[mention.start : mention.end]
    if mention.color is not None and (found := re.search(rf"\b{mention.color}\b", words)):
        others = [color for color in COLORS if color != mention.color]
        yield _Edit(mention.start + found.start(), mention.start + found.end(), str(rng.choice(others)))
    if (mention.count or 0) > 1 and (found := re.search(rf"\b{COUNT_WORDS[mention.count or 0]}\b", words)):
        other = int(rng.choice([number for number in range(2, 7) if number != mention.count]))
        yield _Edit(mention.start + found.start(), mention.start + found.end(), COUNT_WORDS[other])


def _correct(text: str, scene: Scene) -> str | None:
    """Remove all mistakes, or None; a made-up object is replaced by an omitted one, or its phrase is deleted."""
    groups = {group.kind: group for group in object_groups(scene)}
    for _ in range(2 * len(text.split())):  # every round removes one mistake
        claims = parse_claims(text)
        verdict = judge(claims, scene)
        if not mistakes(verdict):
            return text
        left_out = [group for kind, group in groups.items() if kind not in verdict.mentioned]
        changed = None
        if verdict.hallucinated:
            changed = _without_mention(text, verdict.hallucinated[0], left_out)
        elif verdict.wrong_colors:
            wrong = verdict.wrong_colors[0]
            changed = _reword(text, wrong, str(wrong.color), groups[wrong.kind].color)
        elif verdict.wrong_counts:
            changed = _rephrase(text, verdict.wrong_counts[0], groups[verdict.wrong_counts[0].kind])
        if changed is None or changed == text:
            return None
        text = changed
    return None


def _without_mention(text: str, mention: ParsedMention, left_out: list[ObjectGroup]) -> str | None:
    """Replace a mention by an omitted object, or delete it from its list, or delete its sentence."""
    if left_out:
        return _rephrase(text, mention, left_out[0])
    phrase = r"(?:\b(?:a|an|the|also)\s+)*" + re.escape(text[mention.start : mention.end])
    for pattern in (rf",\s+{phrase}(?=,|\s+and\b)", rf"\s+and\s+{phrase}\b", rf"{phrase}\s+and\s+"):
        for found in re.finditer(pattern, text, re.IGNORECASE):
            if found.start() <= mention.start < found.end():
                return _capital(text[: found.start()] + text[found.end() :])
    start = max(text.rfind(". ", 0, mention.start) + 2, 0) if ". " in text[: mention.start] else 0
    end = text.find(".", mention.end) + 1 or len(text)
    rest = (text[:start] + text[end:].lstrip()).strip()
    return rest or None


def _rephrase(text: str, mention: ParsedMention, group: ObjectGroup) -> str | None:
    """Rewrite a mention to match a group: number, color and noun."""
    many = group.count > 1
    noun = plural(group.kind) if many else group.kind
    number = COUNT_WORDS[group.count] + " " if many else ""
    phrase = f"{number}{group.color} {noun}"
    before = re.search(r"\b(an?|the)\s+$", text[: mention.start], re.IGNORECASE)
    start = mention.start
    if many and before and before[1].lower() != "the":
        start = before.start()
    elif not many and not before:
        phrase = f"{article(group.color)} {phrase}"
    changed = _apply(text, _Edit(start, mention.end, phrase))
    return _fix_agreement(changed, start, many)


def _fix_agreement(text: str, start: int, many: bool) -> str:
    """Make `there is`/`are` before and `is`/`are` after the phrase agree with it; lists are left unchanged."""
    be = "are" if many else "is"
    sentence = text.rfind(".", 0, start) + 1
    end = text.find(".", start) if "." in text[start:] else len(text)
    inner = text[sentence:end]
    if " and " in inner:
        return _capital(text)
    changed = re.sub(r"\b(is|are)\b", be, inner, count=1)
    return _capital(text[:sentence] + changed + text[end:])


def _reword(text: str, mention: ParsedMention, old: str, new: str) -> str | None:
    """Replace a word of a mention, or after it if the color is given there."""
    found = re.search(rf"\b{old}\b", text[mention.start :])
    if not found:
        return None
    return _apply(text, _Edit(mention.start + found.start(), mention.start + found.end(), new))


def _noun(text: str, mention: ParsedMention) -> tuple[int, bool] | None:
    """The start of a mention's noun, and whether it is plural."""
    words = text[mention.start : mention.end].lower()
    forms = [(plural(name), True) for name in all_names(mention.kind)] + [(n, False) for n in all_names(mention.kind)]
    for form, many in sorted(forms, key=lambda form: -len(form[0])):
        if re.search(rf"\b{re.escape(form)}$", words):
            return mention.end - len(form), many
    return None


def _apply(text: str, edit: _Edit) -> str:
    """Apply an edit, keeping a capital letter and fixing `a` or `an` before it."""
    new = edit.text
    if text[edit.start].isupper():
        new = new[0].upper() + new[1:]
    fitting = article(new.lower())
    before = re.sub(r"\ban?(?=\s+$)", fitting, text[: edit.start])
    before = re.sub(r"\bAn?(?=\s+$)", fitting.capitalize(), before)
    return before + new + text[edit.end :]


def _claim_sentence(phrase: str) -> str:
    """`red cup` -> `There is a red cup.`, `two cups` -> `There are two cups.`"""
    first = phrase.split()[0].lower()
    several = first in set(COUNT_WORDS.values()) - {"no", "one"} or phrase.endswith("s")
    return f"There are {phrase}." if several else f"There is {article(first)} {phrase}."


def _capital(text: str) -> str:
    """Capitalize the first letter of every sentence."""
    return re.sub(r"(^|[.!?]\s+)([a-z])", lambda found: found[1] + found[2].upper(), text)
