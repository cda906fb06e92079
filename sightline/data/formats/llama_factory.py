"""LLaMA-Factory's ShareGPT layout for preferences: `conversations` up to the answers, `chosen`, `rejected`, `images`.

As in its `data/converter.py`: turns of `from`/`value` (or `messages` of `role`/`content`) that alternate after a system
turn or the column `system`; as many `<image>` as images. Export refuses rows that it would skip or fail on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sightline.data.formats.conversations import pair_drafts, parse_turn, parse_turns, with_system_column
from sightline.data.formats.layout import BadRow, Columns, Drafts, FileLayout, LayoutConfig, has_columns, image_sources
from sightline.data.formats.peer_columns import explicit_turns, own_columns, refuse_media, restore_columns
from sightline.errors import InputError
from sightline.records.rows import Pair
from sightline.records.store import write_json

FILE, DATASET = "preferences.json", "sightline"
_NAMES = {"user": "human", "assistant": "gpt", "system": "system"}


def _fits(columns: Columns) -> bool:
    sides = all(isinstance(columns.get(name), Mapping) for name in ("chosen", "rejected"))
    return sides and (has_columns(columns, "conversations") or has_columns(columns, "messages"))


def _read(columns: Columns, _: LayoutConfig) -> Drafts:
    refuse_media(columns)
    column = "conversations" if has_columns(columns, "conversations") else "messages"
    context = with_system_column(columns, parse_turns(columns.get(column), column))
    better, worse = (parse_turn(columns.get(name), name) for name in ("chosen", "rejected"))
    if {better.role, worse.role} != {"assistant"}:
        raise BadRow("chosen and rejected are not both assistant turns")
    pictures = image_sources(columns, "images", "image")
    yield from restore_columns(columns, pair_drafts((*context, better), (*context, worse), pictures))


def to_row(pair: Pair, where: str) -> dict[str, Any]:
    """Convert a pair to a row.

    Raises:
        InputError: LLaMA-Factory would reject the row.
    """
    turns = explicit_turns(pair, where)
    roles = [turn.role for turn in turns][turns[0].role == "system" :]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise InputError(f"{where}: user and assistant turns do not alternate, which LLaMA-Factory needs; drop the row")
    return {
        **own_columns(pair),
        "conversations": [{"from": _NAMES[turn.role], "value": turn.text} for turn in turns],
        "chosen": {"from": "gpt", "value": pair.chosen},
        "rejected": {"from": "gpt", "value": pair.rejected},
        "images": list(pair.images),
    }


def write_info(directory: Path) -> None:
    """Write `dataset_info.json`, which registers the file with LLaMA-Factory (`dataset: sightline`)."""
    entry = {
        "file_name": FILE,
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "images": "images"},
        "tags": {"role_tag": "from", "content_tag": "value", **{f"{role}_tag": name for role, name in _NAMES.items()}},
    }
    write_json(directory / "dataset_info.json", {DATASET: entry})


LLAMA_FACTORY = FileLayout(
    "llama-factory", "LLaMA-Factory's ShareGPT preferences: conversations, chosen, rejected (JSON)", _fits, _read
)
