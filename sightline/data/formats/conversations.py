"""Drafts of pairs and samples from whole conversations, with history and image placeholders kept.

A layout's reader passes the turns of both sides; this module finds the answers in which they differ.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sightline.config.problems import brief, shorten
from sightline.data.formats.layout import SAME, BadRow, Drafts, Dropped, ImageSource, RecordDraft, text_column
from sightline.data.turns import content_entries, unfold
from sightline.records.rows import IMAGE, Turn

#: Reason for dropping an assistant turn before the first user turn.
OPENING = "opening turn of the assistant"
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
Turns = tuple[Turn, ...]


def parse_turns(value: object, column: str) -> Turns:
    """Parse a list of `from`/`value` or `role`/`content` messages.

    Raises:
        BadRow: the value is not such a list, or a role is neither user, assistant nor system.
    """
    if not isinstance(value, list):
        raise BadRow(f"{column} = {shorten(value)} is not a list of turns")
    return tuple(parse_turn(message, f"{column}[{place}]") for place, message in enumerate(value))


def parse_turn(message: object, column: str) -> Turn:
    """Parse one message; errors are those of `parse_turns`."""
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


def with_system_column(columns: Mapping[str, Any], turns: Turns) -> Turns:
    """The turns after the text of the column `system`, unless they begin with a system turn."""
    if not columns.get("system") or (turns and turns[0].role == "system"):
        return turns
    return (Turn(role="system", text=text_column(columns, "system")), *turns)


def drop_opening(turns: Turns) -> tuple[Turns, Drafts]:
    """The turns without assistant turns before the first user turn, and a `Dropped` for each of these.

    LLaVA's loader skips such an opening too.
    """
    first = next((place for place, turn in enumerate(turns) if turn.role == "user"), 0)
    kept = tuple(turn for place, turn in enumerate(turns) if place >= first or turn.role == "system")
    return kept, (Dropped(OPENING) for _ in range(len(turns) - len(kept)))


def question_turns(text: str, answer: str) -> Turns:
    """A conversation of a question and an answer."""
    return (parse_turn({"role": "user", "content": text}, "question"), assistant_turn(answer))


def assistant_turn(text: str) -> Turn:
    """An assistant turn."""
    return parse_turn({"role": "assistant", "content": text}, "answer")


def pair_drafts(
    chosen: Turns, rejected: Turns, pictures: Sequence[ImageSource], provenance: Mapping[str, Any] | None = None
) -> Drafts:
    """A pair for each answer in which two conversations differ, with the earlier chosen turns as history.

    Raises:
        BadRow: they differ elsewhere, or the numbers of `<image>` and images differ.
    """
    if [turn.role for turn in chosen] != [turn.role for turn in rejected]:
        raise BadRow("the chosen and the rejected conversation have different turns")
    _check_places(chosen, pictures)
    parted = False
    for place, (better, worse) in enumerate(zip(chosen, rejected, strict=True)):
        if _bare(better.text) == _bare(worse.text):
            continue
        if better.role != "assistant":
            raise BadRow(f"the {better.role}'s turn {place + 1} differs between the chosen and rejected conversations")
        parted = True
        if not better.text.strip() or not worse.text.strip():
            yield Dropped(f"empty {'rejected' if better.text.strip() else 'chosen'} answer")
            continue
        shown, context = _before(chosen, place, pictures)
        yield RecordDraft(shown, {**context, "chosen": better.text, "rejected": worse.text}, dict(provenance or {}))
    if not parted:
        yield Dropped(SAME)


def sample_drafts(turns: Turns, pictures: Sequence[ImageSource], *, every: bool) -> Drafts:
    """A sample for the last answer, or for every answer, with the answer as reference.

    Raises:
        BadRow: there is no answer, or the numbers of `<image>` and images differ.
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
        raise BadRow(f"the text has {places} {IMAGE} placeholders and the row has {len(pictures)} images")


def _before(
    turns: Turns, place: int, pictures: Sequence[ImageSource]
) -> tuple[tuple[ImageSource, ...], dict[str, Any]]:
    """The images, and the history and prompt, before the answer at `place`."""
    if not place or turns[place - 1].role != "user":
        raise BadRow(f"the answer in turn {place + 1} does not follow a user turn")
    shown = tuple(pictures[: _places(turns[:place])] if _places(turns[:-1]) else pictures)
    before = unfold([*_without_leading(turns[:place], len(shown))])
    if not before[-1].text.strip():
        raise BadRow(f"the prompt in turn {place} is empty")
    return shown, {"history": tuple(before[:-1]), "prompt": before[-1].text}


def _without_leading(turns: Turns, images: int) -> Iterator[Turn]:
    """The turns without `<image>` if all are at the start of the first user turn, which is the default place."""
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
    """The text to compare, without `<image>`: some datasets have it on one side only."""
    return text.replace(IMAGE, "").strip()


def _joined(entries: Sequence[str | None]) -> str:
    """The text of typed entries; a line break at the start of an entry is kept apart from the one after an image."""
    leading = next((place for place, entry in enumerate(entries) if entry is not None), len(entries))
    rest = "".join(IMAGE if entry is None else entry for entry in entries[leading:])
    return IMAGE * leading + ("\n" if leading and rest.startswith("\n") else "") + rest
