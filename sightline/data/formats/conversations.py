"""Whole conversations as layouts tell them -> drafts of pairs and samples, history and places of images kept.

A reader gives the turns of both sides; where they part is found here. The layouts' columns are the readers' affair.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sightline.config.problems import brief, shorten
from sightline.data.formats.layout import SAME, BadRow, Drafts, Dropped, ImageSource, RecordDraft
from sightline.data.turns import content_entries, unfold
from sightline.records.rows import IMAGE, Turn

#: Why an assistant's turn before the first of the user's is left out.
OPENING = "opening turn of the assistant"
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
Turns = tuple[Turn, ...]


def parse_turns(value: object, column: str) -> Turns:
    """The turns of a list of `from`/`value` or `role`/`content` messages.

    Raises:
        BadRow: it is no such list, or a role is neither user, assistant nor system.
    """
    if not isinstance(value, list):
        raise BadRow(f"{column} = {shorten(value)} is not a list of turns")
    return tuple(parse_turn(message, f"{column}[{place}]") for place, message in enumerate(value))


def parse_turn(message: object, column: str) -> Turn:
    """One turn; errors as `parse_turns`."""
    if not isinstance(message, Mapping):
        raise BadRow(f"{column} = {shorten(message)} is not a turn")
    role = message.get("from") or message.get("role")
    content = message.get("value") if message.get("value") is not None else message.get("content")
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise BadRow(f"{column}: role {shorten(role)} is none of {', '.join(_ROLES)}")
    try:
        text = content if isinstance(content, str) else _joined(content_entries(content))
        return Turn.model_validate({"role": _ROLES[role.lower()], "text": text})
    except (KeyError, TypeError, ValueError) as error:
        raise BadRow(f"{column} = {shorten(content)} is not the content of a turn ({brief(error)})") from error


def drop_opening(turns: Turns) -> tuple[Turns, Drafts]:
    """The turns without those of the assistant before the user's first, and a reason for each that is left out.

    LLaVA's own loader skips such an opening, since nobody asked for it.
    """
    first = next((place for place, turn in enumerate(turns) if turn.role == "user"), 0)
    kept = tuple(turn for place, turn in enumerate(turns) if place >= first or turn.role == "system")
    return kept, (Dropped(OPENING) for _ in range(len(turns) - len(kept)))


def question_turns(text: str, answer: str) -> Turns:
    """A conversation of one question and one answer."""
    return (parse_turn({"role": "user", "content": text}, "question"), assistant_turn(answer))


def assistant_turn(text: str) -> Turn:
    """A turn of the assistant."""
    return parse_turn({"role": "assistant", "content": text}, "answer")


def pair_drafts(
    chosen: Turns, rejected: Turns, pictures: Sequence[ImageSource], provenance: Mapping[str, Any] | None = None
) -> Drafts:
    """A pair for each answer in which two conversations differ, the chosen one's turns before it as history.

    Raises:
        BadRow: they differ elsewhere, or the text has places for another number of images.
    """
    if [turn.role for turn in chosen] != [turn.role for turn in rejected]:
        raise BadRow("the chosen and the rejected conversation have different turns")
    _check_places(chosen, pictures)
    parted = False
    for place, (better, worse) in enumerate(zip(chosen, rejected, strict=True)):
        if _bare(better.text) == _bare(worse.text):
            continue
        if better.role != "assistant":
            raise BadRow(f"the {better.role}'s turn {place + 1} differs between chosen and rejected conversation")
        parted = True
        if not better.text.strip() or not worse.text.strip():
            yield Dropped(f"empty {'rejected' if better.text.strip() else 'chosen'} answer")
            continue
        shown, context = _before(chosen, place, pictures)
        yield RecordDraft(shown, {**context, "chosen": better.text, "rejected": worse.text}, dict(provenance or {}))
    if not parted:
        yield Dropped(SAME)


def sample_drafts(turns: Turns, pictures: Sequence[ImageSource], *, every: bool) -> Drafts:
    """A sample of the last answer, or of every one, with the answer as reference.

    Raises:
        BadRow: there is no answer, or the text has places for another number of images.
    """
    answers = [place for place, turn in enumerate(turns) if turn.role == "assistant"]
    if not answers:
        raise BadRow("the conversation has no answer")
    turns = turns[: answers[-1] + 1]
    _check_places(turns, pictures)
    for place in answers if every else answers[-1:]:
        if turns[place].text.strip():
            shown, context = _before(turns, place, pictures)
            yield RecordDraft(shown, {**context, "reference": turns[place].text})
        else:
            yield Dropped("empty answer")


def _check_places(turns: Turns, pictures: Sequence[ImageSource]) -> None:
    places = _places(turns[:-1])
    if places not in (0, len(pictures)):
        raise BadRow(f"the text says {IMAGE} {places} times and the row has {len(pictures)} images")


def _before(
    turns: Turns, place: int, pictures: Sequence[ImageSource]
) -> tuple[tuple[ImageSource, ...], dict[str, Any]]:
    """The images, history and prompt that stand before the answer at `place`."""
    if not place or turns[place - 1].role != "user":
        raise BadRow(f"the answer in turn {place + 1} does not follow a turn of the user's")
    shown = tuple(pictures[: _places(turns[:place])] if _places(turns[:-1]) else pictures)
    before = unfold([*_without_leading(turns[:place], len(shown))])
    if not before[-1].text.strip():
        raise BadRow(f"the prompt in turn {place} is empty")
    return shown, {"history": tuple(before[:-1]), "prompt": before[-1].text}


def _without_leading(turns: Turns, images: int) -> Iterator[Turn]:
    """The turns without `<image>` where all stand at the start of the first user turn, as they do unsaid."""
    first = True
    for turn in turns:
        if turn.role == "user" and first:
            first = False
            match = re.match(rf"(?:{IMAGE}\n?){{{images}}}", turn.text)
            if match and turn.text[match.end() :].strip():
                yield Turn(role="user", text=turn.text[match.end() :])
                continue
        yield turn


def _places(turns: Turns) -> int:
    return sum(turn.text.count(IMAGE) for turn in turns)


def _bare(text: str) -> str:
    """What counts in comparing: some sets say `<image>` on one side alone."""
    return text.replace(IMAGE, "").strip()


def _joined(entries: Sequence[str | None]) -> str:
    """The text of typed entries; a line break that an entry itself begins with is not the one after an image."""
    leading = next((place for place, entry in enumerate(entries) if entry is not None), len(entries))
    rest = "".join(IMAGE if entry is None else entry for entry in entries[leading:])
    return IMAGE * leading + ("\n" if leading and rest.startswith("\n") else "") + rest
