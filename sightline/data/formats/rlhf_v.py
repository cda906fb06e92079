"""RLHF-V (arXiv 2312.00849): a column `text` of JSON with question, chosen (corrected by people) and rejected.

Columns as on the dataset's card: `ds_name`, `image` (bytes and path), `text`, `origin_dataset`, `origin_split`, `idx`,
`image_path`. The characters in which the answers differ become spans, which dense DPO weighs (eq. 2 of the paper).
"""

from collections.abc import Mapping
from dataclasses import replace

from sightline.data.differences import changed_spans
from sightline.data.formats.conversations import pair_drafts, question
from sightline.data.formats.drafts import (
    Columns,
    Draft,
    Drafts,
    Layout,
    ReadConfig,
    holds,
    known,
    object_of,
    pictures_of,
    text_of,
)


def _fits(columns: Columns) -> bool:
    text = columns.get("text")
    told = isinstance(text, Mapping) or (isinstance(text, str) and text.lstrip().startswith("{"))
    return told and holds(columns, "image") and not holds(columns, "question")


def _read(columns: Columns, _: ReadConfig) -> Drafts:
    told = columns.get("text")
    told = told if isinstance(told, Mapping) else object_of(text_of(columns, "text"), "text")
    asked = text_of(told, "question")
    better, worse = (question(asked, text_of(told, name)) for name in ("chosen", "rejected"))
    origin = known(columns, "idx", "ds_name", "origin_dataset", "origin_split", "image_path")
    for draft in pair_drafts(better, worse, pictures_of(columns, "image"), origin):
        if isinstance(draft, Draft):
            spans = changed_spans(draft.fields["chosen"], draft.fields["rejected"])
            draft = replace(draft, fields={**draft.fields, "chosen_spans": spans[0], "rejected_spans": spans[1]})
        yield draft


RLHF_V = Layout("rlhf-v", "a JSON text of question, chosen, rejected beside the image (Parquet, JSON)", _fits, _read)
