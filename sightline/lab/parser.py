"""Parse free text into claims (objects, counts, colors, places), and judge them against a scene's truth.

Rule-based: `lexicon` tags a text and `grammar` reads the tags, so that any model's answer can be judged; pronouns are
not resolved. The benchmarks turn these judgements into scores.
"""

from collections import Counter
from dataclasses import dataclass

from sightline.lab.grammar import Horizontal, Phrase, Relation, Vertical, colors, negations, read, subjects
from sightline.lab.language import object_groups, relation
from sightline.lab.lexicon import Lexed
from sightline.lab.world import Scene


@dataclass(frozen=True)
class ParsedMention:
    """An object named in a text. `start:end` are the characters of its noun with number and adjectives.

    `count` is None if the text gives no number ("the cup", "several cups"); `color` is None if it gives none, several,
    or one that the world lacks.
    """

    kind: str
    start: int
    end: int
    negated: bool
    count: int | None
    color: str | None


@dataclass(frozen=True)
class RelationClaim:
    """`a subject lies to the left of an object`, asserted."""

    subject_kind: str
    relation: Relation
    object_kind: str


@dataclass(frozen=True)
class PlaceClaim:
    """The claimed position of a kind, in thirds of the picture; None for an unspecified direction."""

    kind: str
    horizontal: Horizontal | None
    vertical: Vertical | None


@dataclass(frozen=True)
class Claims:
    """All claims of a text, in order."""

    mentions: tuple[ParsedMention, ...]
    relations: tuple[RelationClaim, ...]
    places: tuple[PlaceClaim, ...]


@dataclass(frozen=True)
class Judgement:
    """Claims judged against the truth: `mentioned` are kinds named and present, the rest are mistakes."""

    mentioned: frozenset[str]
    hallucinated: tuple[ParsedMention, ...]
    wrong_colors: tuple[ParsedMention, ...]
    wrong_counts: tuple[ParsedMention, ...]
    wrong_relations: tuple[RelationClaim, ...]


def parse_claims(text: str) -> Claims:
    """Parse a text's claims about objects; denied objects are mentions marked as negated."""
    reading = read(text)
    negated, color_names = negations(reading), colors(reading)
    mentions = tuple(
        ParsedMention(
            phrase.kind, *_span(reading.text, phrase), negated[i], _count(reading.text, phrase), color_names[i]
        )
        for i, phrase in enumerate(reading.phrases)
    )
    relations: list[RelationClaim] = []
    places: list[PlaceClaim] = []
    for anchor in reading.anchors:
        for i in subjects(reading, anchor):
            kind = reading.phrases[i].kind
            if negated[i]:
                continue
            if anchor.relation is not None and anchor.target is not None:
                relations.append(RelationClaim(kind, anchor.relation, reading.phrases[anchor.target].kind))
            else:
                places.append(PlaceClaim(kind, anchor.horizontal, anchor.vertical))
    return Claims(mentions, tuple(relations), tuple(places))


def judge(claims: Claims, scene: Scene) -> Judgement:
    """Compare claims with a scene's truth.

    An absent kind is hallucinated if it is named and not denied. A count is wrong unless it is the scene's or the
    text's other counts of that kind add up to the scene's ("three cups: one at the top, two at the left"). A relation
    is judged by `language.relation`, and only if the scene has exactly one object of each kind and they are far enough
    apart.
    """
    asserted = [mention for mention in claims.mentions if not mention.negated]
    groups = {group.kind: group for group in object_groups(scene)}
    present = [mention for mention in asserted if mention.kind in groups]
    totals: Counter[str] = Counter()
    for mention in present:
        if mention.count != groups[mention.kind].count:
            totals[mention.kind] += mention.count or 0
    wrong_relations = []
    for claim in claims.relations:
        one, other = groups.get(claim.subject_kind), groups.get(claim.object_kind)
        if one is not None and other is not None and one.count == other.count == 1 and one is not other:
            truth = relation(one.where, other.where)
            if truth is not None and truth != claim.relation:
                wrong_relations.append(claim)
    return Judgement(
        mentioned=frozenset(mention.kind for mention in present),
        hallucinated=tuple(mention for mention in asserted if mention.kind not in groups),
        wrong_colors=tuple(m for m in present if m.color is not None and m.color != groups[m.kind].color),
        wrong_counts=tuple(
            m for m in present if m.count is not None and groups[m.kind].count not in (m.count, totals[m.kind])
        ),
        wrong_relations=tuple(wrong_relations),
    )


def _span(lexed: Lexed, phrase: Phrase) -> tuple[int, int]:
    """Characters from the number, or else from the word after the article, to the noun."""
    first = phrase.inner
    number = lexed.tags[phrase.start : phrase.inner].lower().find("q")
    if number >= 0:
        first = phrase.start + number
    return lexed.starts[first], lexed.ends[phrase.noun]


def _count(lexed: Lexed, phrase: Phrase) -> int | None:
    determiner = lexed.tags[phrase.start : phrase.inner].lower()
    if "q" in determiner:
        if "j" in determiner or "|" in determiner or "&" in determiner:
            return None
        value = lexed.values[phrase.start + determiner.rindex("q")]
        return value if isinstance(value, int) else None
    return 1 if determiner[:1] == "i" and lexed.tags[phrase.noun] == "n" else None
