"""ms-swift's layout for preferences: `messages` with the chosen answer last, a rejected side, and `images`.

As in its guide to custom datasets: `rejected_response` is one answer, or a list of messages that replaces everything
after the last user turn (ms-swift 3.12 and later); a list of answers is read as several pairs. `rejected_messages` is a
whole conversation. `rejected_images` must equal `images`, since a pair has one set of pictures. `<image>` marks an
image.
"""

from collections.abc import Mapping
from typing import Any

from sightline.config.problems import shorten
from sightline.data.formats.conversations import Turns, assistant_turn, pair_drafts, parse_turns, with_system_column
from sightline.data.formats.layout import BadRow, Columns, Drafts, FileLayout, LayoutConfig, has_columns, image_sources
from sightline.data.formats.peer_columns import explicit_turns, own_columns, refuse_media, restore_columns
from sightline.records.rows import Pair

FILE = "preferences.jsonl"
OTHER_IMAGES = "rejected side with other images"


def _fits(columns: Columns) -> bool:
    return has_columns(columns, "messages") and any(
        has_columns(columns, name) for name in ("rejected_response", "rejected_messages", "rejected_images")
    )


def _read(columns: Columns, _: LayoutConfig) -> Drafts:
    refuse_media(columns)
    chosen = with_system_column(columns, parse_turns(columns.get("messages"), "messages"))
    pictures = image_sources(columns, "images", "image")
    if not chosen or chosen[-1].role != "assistant":
        raise BadRow("messages do not end with the assistant's answer")
    if columns.get("rejected_images") and image_sources(columns, "rejected_images") != pictures:
        raise BadRow("rejected_images differ from images, and a pair has one set of pictures", OTHER_IMAGES)
    for rejected in _rejected(columns, chosen):
        yield from restore_columns(columns, pair_drafts(chosen, rejected, pictures))


def _rejected(columns: Columns, chosen: Turns) -> list[Turns]:
    """The rejected conversations, one for each rejected answer."""
    if has_columns(columns, "rejected_messages"):
        conversation = parse_turns(columns["rejected_messages"], "rejected_messages")
        lacks_system = chosen[0].role == "system" and conversation[:1] != chosen[:1]
        return [(chosen[0], *conversation) if lacks_system else conversation]
    response = columns.get("rejected_response")
    if isinstance(response, list) and response and all(isinstance(one, Mapping) for one in response):
        return [(*chosen[: _after_user(chosen)], *_rejected_turns(response))]
    answers = response if isinstance(response, list) else [response]
    texts = [answer for answer in answers if isinstance(answer, str)]
    if not texts or len(texts) < len(answers):
        raise BadRow(
            f"rejected_response = {shorten(response)} is not an answer, a list of answers or a list of messages"
        )
    return [(*chosen[:-1], assistant_turn(text)) for text in texts]


def _after_user(turns: Turns) -> int:
    """The index after the last user turn."""
    return max((place for place, turn in enumerate(turns, 1) if turn.role == "user"), default=0)


def _rejected_turns(messages: list[Any]) -> Turns:
    turns = parse_turns(messages, "rejected_response")
    if any(turn.role != "assistant" for turn in turns):
        raise BadRow("rejected_response holds a message of another role than assistant")
    return turns


def to_row(pair: Pair, where: str) -> dict[str, Any]:
    """Convert a pair to a row.

    Raises:
        InputError: a text contains a placeholder of ms-swift for an image, video or sound.
    """
    turns = [*explicit_turns(pair, where), assistant_turn(pair.chosen)]
    return {
        **own_columns(pair),
        "messages": [{"role": turn.role, "content": turn.text} for turn in turns],
        "rejected_response": pair.rejected,
        "images": list(pair.images),
    }


MS_SWIFT = FileLayout(
    "ms-swift", "ms-swift's messages with rejected_response or rejected_messages (JSONL)", _fits, _read
)
