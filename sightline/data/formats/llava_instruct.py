"""LLaVA-Instruct (arXiv 2304.08485): instructions as conversations of `human` and `gpt`; they become samples.

Columns as in LLaVA's own `train.py`: `id`, `image` (missing in rows of text alone), `conversations` of `from`/`value`.
"""

from sightline.data.formats.conversations import sample_drafts, turns_of
from sightline.data.formats.drafts import Columns, Drafts, Layout, ReadConfig, holds, pictures_of
from sightline.records.rows import Sample

_OF_PAIRS = ("rejected_conversations", "chosen", "rejected", "output_1", "output_2")


def _fits(columns: Columns) -> bool:
    return holds(columns, "conversations") and not any(holds(columns, name) for name in _OF_PAIRS)


def _read(columns: Columns, config: ReadConfig) -> Drafts:
    turns = turns_of(columns.get("conversations"), "conversations")
    yield from sample_drafts(turns, pictures_of(columns, "image", "images"), every=config.turns == "every")


LLAVA_INSTRUCT = Layout("llava-instruct", "conversations of human and gpt, as samples (JSON)", _fits, _read, Sample)
