"""A row's conversation as messages of entries, images in their places: the form of chat templates and of TRL.

The place of an image is where the text says `<image>`; where no text does, all stand before the first user turn.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sightline.config.problems import shorten
from sightline.data.tiers import fold, unfold
from sightline.errors import InputError
from sightline.records.rows import IMAGE, Turn

Message = tuple[str, list[str | None]]


def messages(history: Sequence[Turn], prompt: str, images: int, where: str) -> list[Message]:
    """Role and entries of each turn, the prompt's last; an entry is a text, or None for the next image.

    What provider and user want stands in the first user turn (`tiers`), behind its images.

    Raises:
        InputError: the text has places for another number of images, or `tiers.fold` refuses the turns.
    """
    turns = [(turn.role, turn.text) for turn in fold([*history, Turn(role="user", text=prompt)], where)]
    places = sum(text.count(IMAGE) for _, text in turns)
    if places not in (0, images):
        raise InputError(f"{where} says {IMAGE} {places} times and has {images} images; let the numbers agree")
    made: list[Message] = [(role, _entries(text)) for role, text in turns]
    if images and not places:
        first = next(entries for role, entries in made if role == "user")
        first[:0] = [None] * images
    return made


def to_turns(told: Iterable[tuple[str, Sequence[str | None]]]) -> tuple[tuple[Turn, ...], str]:
    """History and prompt of messages: the inverse of `messages`, without `<image>` where the rule does not need it.

    Raises:
        ValueError: no message, the last is not the user's, or a role is unknown.
    """
    found = [(role, list(entries)) for role, entries in told]
    if not found or found[-1][0] != "user":
        raise ValueError("the last turn of a prompt must be the user's")
    first = next(place for place, (role, _) in enumerate(found) if role == "user")
    leading = found[first][1]
    images = sum(entry is None for _, entries in found for entry in entries)
    if leading[images:] and all(entry is None for entry in leading[:images]):
        found[first] = (found[first][0], leading[images:])
    turns = unfold([Turn.model_validate({"role": role, "text": _text(entries)}) for role, entries in found])
    return turns[:-1], turns[-1].text


def entries_of(content: Any) -> list[str | None]:
    """The entries of a message's `content` as chat templates have it: one string, or entries with a type.

    Raises:
        ValueError, KeyError, TypeError: it is neither.
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
    """The text cut where images go; the line break that data put between the two is the template's affair."""
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
