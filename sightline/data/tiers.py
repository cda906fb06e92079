"""System Info, User Info and Query: the three tiers of a prompt that says whose wishes an answer is to follow.

MetaAlign (arXiv 2410.14184) puts them in place of system, user and assistant: what the provider says, what is known of
the user, and what is asked. Here the first two are turns of the history (`records.Turn`), and this folds them into the
first user turn, so that any chat template, and any tool that trains on our pairs, reads them; what follows from them is
learned, and stands in the data alone.
"""

import re
from collections.abc import Sequence

from sightline.errors import InputError
from sightline.records.rows import Turn

PROVIDER, ABOUT_USER = "system-info", "user-info"
_TAGS = {PROVIDER: "<System Info>", ABOUT_USER: "<User Info>"}
TIERS = frozenset(_TAGS)
_QUERY = "<User Query>"
_FOLDED = re.compile(
    rf"(?:{_TAGS[PROVIDER]} (?P<provider>.*?)\n)?(?:{_TAGS[ABOUT_USER]} (?P<user>.*?)\n)?{_QUERY} (?P<query>.*)",
    re.DOTALL,
)


def tiers(provider: str = "", about_user: str = "") -> tuple[Turn, ...]:
    """The turns of what the provider and the user want, in their order; an empty text is none."""
    told = (Turn(role="system-info", text=provider), Turn(role="user-info", text=about_user))
    return tuple(turn for turn in told if turn.text)


def fold(turns: Sequence[Turn], where: str) -> list[Turn]:
    """The turns with both infos put in front of the first user turn's text, each behind its tag.

    Raises:
        InputError: an info is empty, occurs twice, stands behind a turn of user or assistant, or a text of the first
            user turn or of an info spells out a tag.
    """
    infos = [turn for turn in turns if turn.role in _TAGS]
    if not infos:
        return list(turns)
    rest = [turn for turn in turns if turn.role not in _TAGS]
    first = next(place for place, turn in enumerate(rest) if turn.role == "user")
    roles = [turn.role for turn in infos]
    if len(set(roles)) < len(roles) or any(turn.role in _TAGS for turn in turns[first + len(infos) :]):
        raise InputError(f"{where} has system-info or user-info twice, or not before its first turn; give each once")
    told = sorted(infos, key=lambda turn: turn.role)  # the provider's first, as it wins
    for turn in (*told, rest[first]):
        if not turn.text.strip() or _spells_a_tag(turn.text):
            raise InputError(f"{where}: a {turn.role} turn is empty or spells out a tag of the tiers; reword it")
    lines = [f"{_TAGS[turn.role]} {turn.text}\n" for turn in told]
    text = "".join(lines) + f"{_QUERY} {rest[first].text}"
    return [*rest[:first], Turn(role="user", text=text), *rest[first + 1 :]]


def unfold(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The inverse of `fold`; turns without tags stay as they are."""
    first = next((place for place, turn in enumerate(turns) if turn.role == "user"), None)
    found = None if first is None else _FOLDED.fullmatch(turns[first].text)
    if first is None or found is None or (found["provider"] or found["user"]) is None:
        return tuple(turns)
    texts = [found[name] or "" for name in ("provider", "user", "query")]
    if any(_spells_a_tag(text) for text in texts):
        return tuple(turns)  # nothing that `fold` has made
    return (*turns[:first], *tiers(*texts[:2]), Turn(role="user", text=texts[2]), *turns[first + 1 :])


def _spells_a_tag(text: str) -> bool:
    return any(tag in text for tag in (*_TAGS.values(), _QUERY))
