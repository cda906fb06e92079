"""The parser's rules: noun phrases, negations, colors, places and relations in a tagged text.

Each rule is a regex over the tag string of `lexicon`, one letter per word; indices are words, not characters. `parser`
turns the findings into claims and judges them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

from sightline.lab.lexicon import AMBIGUOUS, Lexed, Value, lex

Relation = Literal["left of", "right of", "above", "below"]
Horizontal = Literal["left", "middle", "right"]
Vertical = Literal["top", "middle", "bottom"]

# A noun phrase: a determiner, then adjectives and at most one unknown word ("two rusty red cars"; more of
# them after "a" and before a singular, where only adjectives can occur), then the noun; or adjectives and noun.
_DETERMINER = r"(?:[ith]?[ae]*j?[qQ](?:[|&]?q)*|i|t|h|o)"
_ADJECTIVE = r"(?:[aclemzd]|(?<=[ac]),(?=[acu])|(?<=c)&(?=c))"
_NOUN_PHRASE = re.compile(
    rf"(?:({_DETERMINER}){_ADJECTIVE}*(?:u{_ADJECTIVE}*)?"
    rf"|(i){_ADJECTIVE}*(?:u{_ADJECTIVE}*){{2,3}}(?=n)"
    r"|(?:[aclmz]|(?<=c)&(?=c))*)[nN]"
)
# "on the left", "in the top right corner of the image", "the left side"; not "in the middle of the road".
_WHERE = r"(?:pt[ae]*l{1,2}s*|t[ae]*l{1,2}s+)(?:ft?g|pt?g)?(?![nNmfls])"
_PLACE = re.compile(_WHERE)
# "above", "(to the) left (side) of"; and, with the object first, "to the cup's left".
_RELATION = re.compile(r"r|(?:pt?[ae]*|(?<!t))ls*f")
_OWN_SIDE = re.compile(r"'[ae]*ls*")
# "on the table": words allowed between a noun and its verb.
_APART = r"p[ith]?[aclm]*[ugm](?![nNu])"
_COLOR_AFTER = re.compile(
    rf"(?:{_WHERE}|{_APART})?(?:(?:,?k)?e*b(?:[aeQ]*|i[ae]*)|,?e*dp?[ae]*|,e*Q)(c(?:(?:,|,?&)?c)*)(?!&?[acm]*[nN])"
)
_ABSENT_AFTER = re.compile(rf"(?:{_WHERE}|{_APART})?(?:,?k)?e*(?:[bM]?e*xe*b?e*(?:z|T|v?pt?g|v(?![a-zA-Z]))|be*y)")
_NOT = re.compile(r"(?:w|W[beTP]*|x[vbeuMTP]{0,4})$")
_NOT_THE = re.compile(r"(?:w|[xW](?:[bMTPe]*v+)*)$")
_NO_UNKNOWN = re.compile(r"(?:[owW]|x[vbeMTP]{0,3}(?=[ihu]))[ih]?(?:[acmuz]+,)*[acmuz]+(,?\|e*|,?&|,)$")
_OR = re.compile(r",?\|e*$")
_LIST = re.compile(r"(?:,|,?&)$")
_LIST_TO_OR = re.compile(r"(?:,[ih]?[aclmuz]*[nN])*,?\|")
_DENIED = re.compile(r"xe*$")
_FRONT_BEFORE = re.compile(r"(?:^|[,&])[&e]*$")
_FRONT_AFTER = re.compile(r",?[ePM]*[TbvuithqQacnNox]")
_APART_BEFORE_VERB = re.compile(rf"^{_APART}(?=[,ke]*b)")
_OTHER_THING = re.compile(r"[.BithqQTPnNow]")


class Phrase(NamedTuple):
    """A noun phrase: words `start` to `noun`, where `start:inner` is its determiner (article or number)."""

    start: int
    inner: int
    noun: int
    kind: str

    @property
    def end(self) -> int:
        return self.noun + 1


class PhraseAnchor(NamedTuple):
    """A place, or a relation with its object (`target`, the number of a noun phrase), given by words `start:end`."""

    start: int
    end: int
    relation: Relation | None = None
    target: int | None = None
    horizontal: Horizontal | None = None
    vertical: Vertical | None = None


@dataclass
class Reading:
    """A partly parsed text; `tags` has anchors masked as Z, `text.tags` still has them."""

    text: Lexed
    phrases: list[Phrase]
    anchors: list[PhraseAnchor] = field(default_factory=list)
    tags: str = ""


def read(text: str) -> Reading:
    """Find noun phrases, places and relations."""
    lexed = lex(text)
    reading = Reading(lexed, list(_noun_phrases(lexed, text)))
    reading.anchors = sorted([*_relations(reading), *_own_sides(reading)], key=lambda anchor: anchor.start)
    reading.anchors = sorted([*reading.anchors, *_places(reading)], key=lambda anchor: anchor.start)
    masked = list(lexed.tags)
    for anchor in reading.anchors:
        masked[anchor.start : anchor.end] = "Z" * (anchor.end - anchor.start)
    reading.tags = "".join(masked)
    return reading


def _noun_phrases(lexed: Lexed, text: str) -> Iterator[Phrase]:
    tags = lexed.tags
    for match in _NOUN_PHRASE.finditer(tags):
        start, noun = match.start(), match.end() - 1
        inner = max(match.end(1), match.end(2), start)
        following, before = tags[noun + 1 : noun + 2], tags[start - 1 : start]
        if tags[noun] == "n" and following == "m":
            continue  # "the flower garden": the place, not the thing
        if inner == start and text[lexed.starts[noun] : lexed.ends[noun]].lower() in AMBIGUOUS:
            listed = before != "" and before in "&|,oxwW" and following != "p"
            if (following != "" and following in "ithq") or (tags[noun] == "n" and not listed):
                continue  # "people watch the boats"
        yield Phrase(start, inner, noun, cast(str, lexed.values[noun]))


def _directions(lexed: Lexed, start: int, end: int) -> list[Value]:
    return [lexed.values[i] for i in range(start, end) if lexed.tags[i] in "lr"]


def _relations(reading: Reading) -> Iterator[PhraseAnchor]:
    at_start = {phrase.start: i for i, phrase in enumerate(reading.phrases)}
    for match in _RELATION.finditer(reading.text.tags):
        target = at_start.get(match.end())
        word = _directions(reading.text, *match.span())[0]
        if target is not None and word in ("left", "right", "above", "below"):
            name = cast(Relation, f"{word} of" if word in ("left", "right") else word)
            yield PhraseAnchor(match.start(), reading.phrases[target].end, name, target)


def _own_sides(reading: Reading) -> Iterator[PhraseAnchor]:
    at_end = {phrase.end: i for i, phrase in enumerate(reading.phrases)}
    for match in _OWN_SIDE.finditer(reading.text.tags):
        target = at_end.get(match.start())
        word = _directions(reading.text, *match.span())[0]
        if target is not None and word in ("left", "right"):
            start = reading.phrases[target].start
            start -= reading.text.tags[start - 1 : start] == "p"
            yield PhraseAnchor(start, match.end(), cast(Relation, f"{word} of"), target)


def _places(reading: Reading) -> Iterator[PhraseAnchor]:
    for match in _PLACE.finditer(reading.text.tags):
        start, end = match.span()
        if not any(anchor.start < end and start < anchor.end for anchor in reading.anchors):
            words = _directions(reading.text, start, end)
            across = next((word for word in words if word in ("left", "right")), None)
            down = next((word for word in words if word in ("top", "bottom")), None)
            if "middle" in words:
                across, down = across or "middle", down or "middle"
            yield PhraseAnchor(start, end, None, None, cast(Horizontal | None, across), cast(Vertical | None, down))


def negations(reading: Reading) -> list[bool]:
    """Whether the text denies each noun phrase."""
    tags = reading.text.tags
    denied: list[bool] = []
    for i, phrase in enumerate(reading.phrases):
        denied.append(_denied_before(reading, phrase) or (i > 0 and denied[-1] and _continues(reading, i)))
    for i, phrase in enumerate(reading.phrases):
        after = _ABSENT_AFTER.match(tags, phrase.end)
        if after:
            for j in joint_subjects(reading, head_phrase(reading, i), after.start(), after.end()):
                denied[j] = True
    return denied


def _denied_before(reading: Reading, phrase: Phrase) -> bool:
    """`no cups`, `not a cup`, `without cups`, `does not show any cups`, `no people or cups`."""
    tags = reading.text.tags
    left = tags[max(_border(tags, phrase.start), phrase.start - 12) : phrase.start]
    determiner = tags[phrase.start : phrase.inner]
    if determiner.startswith("o"):
        return True
    if (_NOT_THE if determiner.startswith("t") else _NOT).search(left):
        vague = "q" in determiner and reading.text.values[phrase.inner - 1] is None
        return not (vague and not left.endswith("w"))  # "not many cups" means some
    unknown = _NO_UNKNOWN.search(left)
    return unknown is not None and _continues_list(tags, unknown[1], phrase)


def _continues(reading: Reading, i: int) -> bool:
    """Whether the previous noun phrase's negation extends to this one: `no cups, plates or spoons`."""
    tags, before, phrase = reading.text.tags, reading.phrases[i - 1], reading.phrases[i]
    if tags[before.start - 1 : before.start] == "w" and tags[phrase.start : phrase.inner] == "i":
        return _LIST.match(tags[before.end : phrase.start]) is not None  # "without a cup and a plate"
    return _continues_list(tags, tags[before.end : phrase.start], phrase)


def _continues_list(tags: str, between: str, phrase: Phrase) -> bool:
    if _OR.match(between):
        return True
    if not _LIST.match(between):
        return False
    if _LIST_TO_OR.match(tags, phrase.end):
        return True
    return phrase.inner == phrase.start and tags[phrase.end : phrase.end + 1] not in tuple("bMv")


def colors(reading: Reading) -> list[str | None]:
    """The color of each noun phrase: `red cups`, `cups that are red`; None where there is none, or more than one."""
    tags = reading.text.tags
    found = [_one_color(reading.text, phrase.inner, phrase.noun) for phrase in reading.phrases]
    for i, phrase in enumerate(reading.phrases):
        after = _COLOR_AFTER.match(tags, phrase.end)
        if after:
            for j in joint_subjects(reading, head_phrase(reading, i), phrase.end, after.start(1)):
                if "c" not in tags[reading.phrases[j].inner : reading.phrases[j].noun]:
                    found[j] = _one_color(reading.text, *after.span(1))
    return found


def _one_color(lexed: Lexed, start: int, end: int) -> str | None:
    found = {lexed.values[i] for i in range(start, end) if lexed.tags[i] == "c"}
    return cast(str | None, found.pop()) if len(found) == 1 else None


def subjects(reading: Reading, anchor: PhraseAnchor) -> list[int]:
    """The noun phrases that an anchor is about; empty if the sentence names none or denies it."""
    tags = reading.tags
    border = _border(tags, anchor.start)
    left = tags[border : anchor.start]
    if _DENIED.search(left):
        return []
    before_but = next((other for other in reading.anchors if other.end == border - 1), None)
    if before_but is not None and border == anchor.start and tags[border - 1] == "B":
        return _subjects_before(reading, before_but)  # "not on the left but on the right"
    if _FRONT_BEFORE.search(left) and _FRONT_AFTER.match(tags, anchor.end):
        after = _subjects_after(reading, anchor)
        if after:
            return after
    return _subjects_before(reading, anchor)


def _subjects_before(reading: Reading, anchor: PhraseAnchor) -> list[int]:
    """`The cup is on the left`: the nearest noun phrase before, unless an unknown thing is nearer."""
    tags = reading.tags
    border = _border(tags, anchor.start)
    targets = {other.target for other in reading.anchors}
    before = [i for i, p in enumerate(reading.phrases) if border <= p.start < anchor.start and i not in targets]
    if not before:
        return []
    nearest = before[-1]
    end = reading.phrases[nearest].end
    between = tags[end : anchor.start]
    if _OTHER_THING.search(_APART_BEFORE_VERB.sub("", between)):
        return []
    if "b" in between:
        return joint_subjects(reading, head_phrase(reading, nearest), end, anchor.start)
    return [nearest]


def _subjects_after(reading: Reading, anchor: PhraseAnchor) -> list[int]:
    """`On the left, there are a cup and two plates`: the list of noun phrases that follows."""
    tags, found = reading.tags, list[int]()
    end = anchor.end
    for i, phrase in enumerate(reading.phrases):
        if phrase.start < anchor.end:
            continue
        between = tags[end : phrase.start]
        follows = _LIST.match(between) if found else not re.search(r"[.BithqQnNowZ]", between)
        if not follows or tags[phrase.start] == "Z":
            break
        found.append(i)
        end = phrase.end
    return found


def head_phrase(reading: Reading, i: int) -> int:
    """The noun phrase that noun phrase `i` belongs to: the cup of `the cup on the plate`."""
    while i > 0:
        start = reading.phrases[i].start
        anchor = next((a for a in reading.anchors if a.target == i), None)
        if anchor is not None:
            start = anchor.start
        elif reading.text.tags[start - 1] in "pf":
            start -= 1
        else:
            break
        if not re.fullmatch(r"(?:,?kb)?", reading.text.tags[reading.phrases[i - 1].end : start]):
            break
        i -= 1
    return i


def joint_subjects(reading: Reading, i: int, start: int, end: int) -> list[int]:
    """Noun phrase `i` and those listed with it as subjects of a plural verb, or of "both", within words `start:end`.

    `A cup and a plate are red` is about both; `there is a cup and a plate is red` about the plate.
    """
    both = "Q" in reading.text.tags[start:end]
    plural = both or any(reading.text.tags[j] == "b" and reading.text.values[j] == "plural" for j in range(start, end))
    tags, first = reading.text.tags, i
    while plural and first > 0:
        between = tags[reading.phrases[first - 1].end : reading.phrases[first].start]
        if not _LIST.match(between):
            break
        first -= 1
    opening = tags[_border(tags, reading.phrases[first].start) : reading.phrases[first].start]
    return [i] if re.search(r"[Tv]", opening) and not both else list(range(first, i + 1))


def _border(tags: str, before: int) -> int:
    """The start of a word's clause: after the last full stop or `but`."""
    return max(tags.rfind(".", 0, before), tags.rfind("B", 0, before)) + 1
