"""What a pair of ours holds beyond a peer's columns, carried along so that it comes back whole.

In peers' files it is one text, `sightline`, beside `id`: their loaders pass it over, and a text has one type in every
row. In our Parquet files it is columns.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sightline.config.problems import shorten
from sightline.data.formats.drafts import BadRow, Columns, Draft, Drafts, holds, object_of
from sightline.records.rows import Pair

_COLUMN = "sightline"
_FIELDS = ("builder", "cluster", "provenance", "second_rejected", "chosen_spans", "rejected_spans", "media")


def own_columns(pair: Pair) -> dict[str, str]:
    """`id` and the rest of the pair, for a peer's row."""
    rest = pair.model_dump(mode="json", include=set(_FIELDS))
    return {"id": pair.id, _COLUMN: json.dumps(rest, ensure_ascii=False, sort_keys=True)}


def restored(columns: Columns, drafts: Drafts) -> Drafts:
    """The drafts, with what a row of ours says of itself."""
    own = _own(columns)
    for draft in drafts:
        yield replace(draft, fields={**draft.fields, **own}) if isinstance(draft, Draft) else draft


def _own(columns: Columns) -> dict[str, Any]:
    if isinstance(columns.get(_COLUMN), str):
        told: Mapping[str, Any] = {**object_of(columns[_COLUMN], _COLUMN), "id": columns.get("id")}
        if unknown := told.keys() - {"id", *_FIELDS}:
            raise BadRow(f"{_COLUMN} = {shorten(columns[_COLUMN])} has an unknown key {shorten(min(unknown))}")
        return dict(told)
    if not (holds(columns, "id", "builder", "cluster") and isinstance(columns.get("provenance"), str)):
        return {}
    own = {name: columns[name] for name in ("id", *_FIELDS) if columns.get(name) is not None}
    return {**own, "provenance": object_of(columns["provenance"], "provenance")}
