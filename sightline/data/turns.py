"""Conversion of a row's conversation to the messages of chat templates and TRL, and back, with images in place.

An image goes to each `<image>`; without any, all go before the first user turn. Following MetaAlign (arXiv 2410.14184),
a prompt may have three tiers: System Info (the provider's wishes), User Info (about the user) and the User Query. The
infos are turns of the history; `fold` moves them, tagged, into the first user turn, so that any chat template and any
trainer accepts them. The provider takes precedence.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.records.rows import IMAGE, Turn

PROVIDER, ABOUT_USER = "system-info", "user-info"
_TAGS = {PROVIDER: "<System Info>", ABOUT_USER: "<User Info>"}
TIERS = frozenset(_TAGS)
_QUERY = "<User Query>"
_FOLDED = re.compile(
    rf"(?:{_TAGS[PROVIDER]} (?P<provider>.*?)\n)?(?:{_TAGS[ABOUT_USER]} (?P<user>.*?)\n)?{_QUERY} (?P<query>.*)",
    re.DOTALL,
)


def tiers(provider: str = "", about_user: str = "") -> tuple[Turn, ...]:
    """The info turns of provider and user, in this order; an empty text gives no turn."""
    turns = (Turn(role="system-info", text=provider), Turn(role="user-info", text=about_user))
    return tuple(turn for turn in turns if turn.text)


def fold(turns: Sequence[Turn], where: str) -> list[Turn]:
    """The turns with both infos moved in front of the first user turn's text, each after its tag.

    Raises:
        InputError: an info is empty, is repeated, or follows a turn of user or assistant, or an info or the first user
            turn contains a tag.
    """
    infos = [turn for turn in turns if turn.role in _TAGS]
    if not infos:
        return list(turns)
    rest = [turn for turn in turns if turn.role not in _TAGS]
    first = next(place for place, turn in enumerate(rest) if turn.role == "user")
    roles = [turn.role for turn in infos]
    if len(set(roles)) < len(roles) or any(turn.role in _TAGS for turn in turns[first + len(infos) :]):
        raise InputError(f"{where} has system-info or user-info twice, or not before its first turn; give each once")
    ordered = sorted(infos, key=lambda turn: turn.role)  # the provider first, since it takes precedence
    for turn in (*ordered, rest[first]):
        if not turn.text.strip() or _spells_a_tag(turn.text):
            raise InputError(f"{where}: a {turn.role} turn is empty or contains a tag of the tiers; reword it")
    lines = [f"{_TAGS[turn.role]} {turn.text}\n" for turn in ordered]
    text = "".join(lines) + f"{_QUERY} {rest[first].text}"
    return [*rest[:first], Turn(role="user", text=text), *rest[first + 1 :]]


def unfold(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The inverse of `fold`; turns without tags are unchanged."""
    first = next((place for place, turn in enumerate(turns) if turn.role == "user"), None)
    found = None if first is None else _FOLDED.fullmatch(turns[first].text)
    if first is None or found is None or (found["provider"] or found["user"]) is None:
        return tuple(turns)
    texts = [found[name] or "" for name in ("provider", "user", "query")]
    if any(_spells_a_tag(text) for text in texts):
        return tuple(turns)  # not a result of `fold`
    return (*turns[:first], *tiers(*texts[:2]), Turn(role="user", text=texts[2]), *turns[first + 1 :])


def _spells_a_tag(text: str) -> bool:
    return any(tag in text for tag in (*_TAGS.values(), _QUERY))


Message = tuple[str, list[str | None]]
E = TypeVar("E")


def merge_system_turns(turns: Sequence[tuple[str, list[str | E]]]) -> list[tuple[str, list[str | E]]]:
    """The turns with the texts of system turns moved to the start of the first user turn, each on a line of its own.

    As in `fold`, they follow the images that lead it. For templates with two roles, `user` and all others, which would
    render a system turn as an answer. Entries that are no texts, such as images, are dropped from system turns.
    """
    system = [entries for role, entries in turns if role == "system"]
    rest = [(role, entries) for role, entries in turns if role != "system"]
    first = next(place for place, (role, _) in enumerate(rest) if role == "user")
    opening = "".join(f"{entry}\n" for entries in system for entry in entries if isinstance(entry, str))
    entries = rest[first][1]
    place = next((place for place, entry in enumerate(entries) if isinstance(entry, str)), len(entries))
    texts = [entry for entry in entries[place : place + 1] if isinstance(entry, str)]
    merged: list[str | E] = [*entries[:place], opening + "".join(texts), *entries[place + 1 :]]
    return [*rest[:first], ("user", merged), *rest[first + 1 :]]


def messages(history: Sequence[Turn], prompt: str, images: int, where: str) -> list[Message]:
    """Role and entries of each turn, the prompt last; an entry is a text, or None for the next image.

    The infos of provider and user are folded into the first user turn, after its images.

    Raises:
        InputError: the number of `<image>` differs from `images`, or `fold` refuses the turns.
    """
    turns = [(turn.role, turn.text) for turn in fold([*history, Turn(role="user", text=prompt)], where)]
    places = sum(text.count(IMAGE) for _, text in turns)
    if places not in (0, images):
        raise InputError(f"{where} has {places} {IMAGE} placeholders and {images} images; make the numbers equal")
    result: list[Message] = [(role, _entries(text)) for role, text in turns]
    if images and not places:
        first = next(entries for role, entries in result if role == "user")
        first[:0] = [None] * images
    return result


def to_turns(conversation: Iterable[tuple[str, Sequence[str | None]]]) -> tuple[tuple[Turn, ...], str]:
    """History and prompt of messages: the inverse of `messages`, without `<image>` where it is redundant.

    Raises:
        ValueError: there is no message, the last is not the user's, or a role is unknown.
    """
    found = [(role, list(entries)) for role, entries in conversation]
    if not found or found[-1][0] != "user":
        raise ValueError("the last turn of a prompt must be the user's")
    first = next(place for place, (role, _) in enumerate(found) if role == "user")
    leading = found[first][1]
    images = sum(entry is None for _, entries in found for entry in entries)
    if leading[images:] and all(entry is None for entry in leading[:images]):
        found[first] = (found[first][0], leading[images:])
    turns = unfold([Turn.model_validate({"role": role, "text": _text(entries)}) for role, entries in found])
    return turns[:-1], turns[-1].text


def content_entries(content: Any) -> list[str | None]:
    """The entries of a message's `content`: one string, or typed entries, as in chat templates.

    Raises:
        ValueError, KeyError, TypeError: the content is neither.
    """
    if isinstance(content, str):
        return list(_entries(content))
    return [_entry(entry) for entry in content]


def _entry(entry: Mapping[str, Any]) -> str | None:
    if entry["type"] == "image":
        return None
    if entry["type"] != "text" or not isinstance(entry["text"], str):
        raise ValueError(f"an entry of type {shorten(entry['type'])} is neither text nor image")
    return entry["text"]


def _entries(text: str) -> list[str | None]:
    """The text split at images, without the line breaks beside them, which the template adds."""
    parts: list[str | None] = []
    cut = text.split(IMAGE)
    for place, part in enumerate(cut):
        part = part.removeprefix("\n") if place else part
        part = part.removesuffix("\n") if place < len(cut) - 1 else part
        parts += [None] if place else []
        parts += [part] if part else []
    return parts


def _text(entries: Sequence[str | None]) -> str:
    return "".join(IMAGE if entry is None else entry for entry in entries)
