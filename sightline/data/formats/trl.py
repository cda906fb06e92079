"""TRL's preference layout, which Sightline's pairs also have: `images`, `prompt`, `chosen`, `rejected`.

Values are texts or lists of messages with `role` and `content`. If `prompt` is missing, or a text beside whole
conversations, the prompt is the part that both conversations share, as in TRL's `maybe_extract_prompt`.
"""

from sightline.data.formats.conversations import Turns, assistant_turn, pair_drafts, parse_turn, parse_turns
from sightline.data.formats.layout import Columns, Drafts, FileLayout, LayoutConfig, has_columns, image_sources
from sightline.data.formats.peer_columns import restore_columns

_OTHERS = ("question", "conversations", "messages", "completions")


def _fits(columns: Columns) -> bool:
    sides = [columns.get(name) for name in ("chosen", "rejected")]
    whole = all(isinstance(side, list) for side in sides)
    texts = all(isinstance(side, str) for side in sides) and has_columns(columns, "prompt")
    return (whole or texts) and not any(has_columns(columns, name) for name in _OTHERS)


def _read(columns: Columns, _: LayoutConfig) -> Drafts:
    better, worse = (_context(columns) + _answer(columns, name) for name in ("chosen", "rejected"))
    yield from restore_columns(columns, pair_drafts(better, worse, image_sources(columns, "images", "image")))


def _context(columns: Columns) -> Turns:
    """The turns before both answers."""
    prompt = columns.get("prompt")
    if isinstance(prompt, str) and not isinstance(columns.get("chosen"), list):
        return (parse_turn({"role": "user", "content": prompt}, "prompt"),)
    return parse_turns(prompt, "prompt") if isinstance(prompt, list) else ()


def _answer(columns: Columns, name: str) -> Turns:
    value = columns.get(name)
    return (assistant_turn(value),) if isinstance(value, str) else parse_turns(value, name)


TRL = FileLayout(
    "trl", "TRL's images, prompt, chosen, rejected; prompts may be implicit (Parquet, JSONL)", _fits, _read
)
