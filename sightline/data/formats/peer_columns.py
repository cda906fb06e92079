"""What a pair of ours holds beyond a peer's columns, carried along so that it comes back whole.

In peers' files it is one text, `sightline`, beside `id`: their loaders pass it over, and a text has one type in every
row. In our Parquet files it is columns.
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
    """`id` and the rest of the pair, for a peer's row."""
    rest = pair.model_dump(mode="json", include=set(_FIELDS))
    return {"id": pair.id, _COLUMN: json.dumps(rest, ensure_ascii=False, sort_keys=True)}


def restore_columns(columns: Columns, drafts: Drafts) -> Drafts:
    """The drafts, with what a row of ours says of itself."""
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
    """The turns of history and prompt, tiers folded, `<image>` for every image where the text says so, else in front.

    Raises:
        InputError: the numbers disagree, or a text says what peers take for an image, a video or a sound.
    """
    messages(pair.history, pair.prompt, len(pair.images), where)  # the numbers agree
    turns = fold([*pair.history, Turn(role="user", text=pair.prompt)], where)
    if not any(IMAGE in turn.text for turn in turns):
        first = next(place for place, turn in enumerate(turns) if turn.role == "user")
        lead = IMAGE * len(pair.images) + ("\n" if pair.images else "")
        turns[first] = Turn(role="user", text=lead + turns[first].text)
    answers = (pair.chosen, pair.rejected)
    for mark, texts in [(IMAGE, answers), *((mark, (*answers, *(t.text for t in turns))) for mark in _OTHER_MEDIA)]:
        if any(mark in text for text in texts):
            raise InputError(
                f"{where}: a text says {mark}, which others take for the thing itself; reword or drop the row"
            )
    return turns


def refuse_media(columns: Columns) -> None:
    """Refuse a row that has more than images.

    Raises:
        BadRow: it has videos or sounds.
    """
    for name in ("videos", "audios"):
        if columns.get(name):
            raise BadRow(f"the row has {name}, which are not read", "video or sound")
