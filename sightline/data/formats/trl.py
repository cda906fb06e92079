"""TRL's preference layout, which is also that of our pairs: `images`, `prompt`, `chosen`, `rejected`.

Texts or lists of messages with `role` and `content`; where `prompt` is missing, or a text beside whole conversations,
the prompt is what both conversations share, as in TRL's `maybe_extract_prompt`.
"""

from sightline.data.formats.conversations import Turns, pair_drafts, reply, turn_of, turns_of
from sightline.data.formats.layout import Columns, Drafts, FileLayout, LayoutConfig, holds, pictures_of
from sightline.data.formats.peer_columns import restored

_OTHERS = ("question", "conversations", "messages", "completions")


def _fits(columns: Columns) -> bool:
    sides = [columns.get(name) for name in ("chosen", "rejected")]
    whole = all(isinstance(side, list) for side in sides)
    texts = all(isinstance(side, str) for side in sides) and holds(columns, "prompt")
    return (whole or texts) and not any(holds(columns, name) for name in _OTHERS)


def _read(columns: Columns, _: LayoutConfig) -> Drafts:
    better, worse = (_context(columns) + _answer(columns, name) for name in ("chosen", "rejected"))
    yield from restored(columns, pair_drafts(better, worse, pictures_of(columns, "images", "image")))


def _context(columns: Columns) -> Turns:
    """The turns that stand before both sides."""
    prompt = columns.get("prompt")
    if isinstance(prompt, str) and not isinstance(columns.get("chosen"), list):
        return (turn_of({"role": "user", "content": prompt}, "prompt"),)
    return turns_of(prompt, "prompt") if isinstance(prompt, list) else ()


def _answer(columns: Columns, name: str) -> Turns:
    value = columns.get(name)
    return (reply(value),) if isinstance(value, str) else turns_of(value, name)


TRL = FileLayout(
    "trl", "TRL's images, prompt, chosen, rejected; prompts may be implicit (Parquet, JSONL)", _fits, _read
)
