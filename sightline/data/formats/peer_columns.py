"""Fields of a pair that other trainers' layouts lack, stored so that export and import are lossless.

Exported files have them as JSON in one text column, `sightline`, beside `id`: other loaders ignore it, and its type is
the same in every row. Sightline's Parquet files have one column per field.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sightline.config.problems import shorten
from sightline.data.formats.layout import BadRow, Columns, Drafts, RecordDraft, has_columns, parse_object
from sightline.data.turns import fold, messages
from sightline.errors import InputError
from sightline.records.rows import IMAGE, Pair, Turn

_COLUMN = "sightline"
_FIELDS = ("builder", "cluster", "provenance", "second_rejected", "chosen_spans", "rejected_spans", "media")


def own_columns(pair: Pair) -> dict[str, str]:
    """The columns `id` and `sightline` of an exported row."""
    rest = pair.model_dump(mode="json", include=set(_FIELDS))
    return {"id": pair.id, _COLUMN: json.dumps(rest, ensure_ascii=False, sort_keys=True)}


def restore_columns(columns: Columns, drafts: Drafts) -> Drafts:
    """The drafts with the fields that Sightline exported with the row."""
    own = _own(columns)
    for draft in drafts:
        yield replace(draft, fields={**draft.fields, **own}) if isinstance(draft, RecordDraft) else draft


def _own(columns: Columns) -> dict[str, Any]:
    if isinstance(columns.get(_COLUMN), str):
        carried: Mapping[str, Any] = {**parse_object(columns[_COLUMN], _COLUMN), "id": columns.get("id")}
        if unknown := carried.keys() - {"id", *_FIELDS}:
            raise BadRow(f"{_COLUMN} = {shorten(columns[_COLUMN])} has an unknown key {shorten(min(unknown))}")
        return dict(carried)
    if not (has_columns(columns, "id", "builder", "cluster") and isinstance(columns.get("provenance"), str)):
        return {}
    own = {name: columns[name] for name in ("id", *_FIELDS) if columns.get(name) is not None}
    return {**own, "provenance": parse_object(columns["provenance"], "provenance")}


_OTHER_MEDIA = ("<video>", "<audio>")


def explicit_turns(pair: Pair, where: str) -> list[Turn]:
    """The turns of history and prompt, tiers folded, with an explicit `<image>` for every image.

    Raises:
        InputError: the numbers of `<image>` and images differ, or a text contains a media placeholder.
    """
    messages(pair.history, pair.prompt, len(pair.images), where)  # checks the number of images
    turns = fold([*pair.history, Turn(role="user", text=pair.prompt)], where)
    if not any(IMAGE in turn.text for turn in turns):
        first = next(place for place, turn in enumerate(turns) if turn.role == "user")
        lead = IMAGE * len(pair.images) + ("\n" if pair.images else "")
        turns[first] = Turn(role="user", text=lead + turns[first].text)
    answers = (pair.chosen, pair.rejected)
    for mark, texts in [(IMAGE, answers), *((mark, (*answers, *(t.text for t in turns))) for mark in _OTHER_MEDIA)]:
        if any(mark in text for text in texts):
            raise InputError(
                f"{where}: a text contains {mark}, which other trainers read as a placeholder; reword or drop the row"
            )
    return turns


def refuse_media(columns: Columns) -> None:
    """Refuse a row with media other than images.

    Raises:
        BadRow: the row has videos or sounds.
    """
    for name in ("videos", "audios"):
        if columns.get(name):
            raise BadRow(f"the row has {name}, which are not supported", "video or sound")
