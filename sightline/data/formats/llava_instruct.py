"""LLaVA-Instruct (arXiv 2304.08485): instructions as conversations of `human` and `gpt`; they become samples, and back.

Columns as in LLaVA's own `train.py`: `id`, `image` (missing in rows of text alone), `conversations` of `from`/`value`.
The type of an instruction stands in the name of its file (conversation_58k.json, detail_23k.json, ...) and becomes the
sample's task. A turn of `gpt` before the first of `human` is left out, as in the same file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline.config.problems import shorten
from sightline.data.formats.conversations import from_the_user, sample_drafts, turns_of
from sightline.data.formats.drafts import Columns, Drafts, Layout, ReadConfig, holds, pictures_of
from sightline.data.tiers import fold
from sightline.records.rows import IMAGE, Sample, Turn
from sightline.records.store import write_json

_OF_PAIRS = ("rejected_conversations", "chosen", "rejected", "output_1", "output_2")
_TYPES = ("conversation", "detail", "complex")
_NAMES = {"user": "human", "assistant": "gpt", "system": "system"}


def _fits(columns: Columns) -> bool:
    return holds(columns, "conversations") and not any(holds(columns, name) for name in _OF_PAIRS)


def _read(columns: Columns, config: ReadConfig) -> Drafts:
    turns, left_out = from_the_user(turns_of(columns.get("conversations"), "conversations"))
    yield from left_out
    yield from sample_drafts(turns, pictures_of(columns, "image", "images"), every=config.turns == "every")


def type_of(file: Path) -> str:
    """The type of the instructions of a file, empty where its name says none."""
    return next((kind for kind in _TYPES if file.name.lower().startswith(kind)), "")


def row_of(sample: Sample) -> dict[str, Any]:
    """A sample with its reference as a row."""
    answer = Turn(role="assistant", text=sample.reference or "")
    turns = fold([*sample.history, Turn(role="user", text=sample.prompt), answer], f"sample {shorten(sample.id)}")
    if sample.images and not any(IMAGE in turn.text for turn in turns):
        first = next(place for place, turn in enumerate(turns) if turn.role == "user")
        turns[first] = Turn(role="user", text=f"{IMAGE}\n" * len(sample.images) + turns[first].text)
    pictures = {"image": sample.images[0] if len(sample.images) == 1 else list(sample.images)} if sample.images else {}
    told = [{"from": _NAMES[turn.role], "value": turn.text} for turn in turns]
    return {"id": sample.id, **pictures, "conversations": told}


def write_llava(samples: Sequence[Sample], path: Path) -> None:
    """Write a file that LLaVA's own training takes as it is, images relative to its folder."""
    write_json(path, [row_of(sample) for sample in samples])


LLAVA_INSTRUCT = Layout(
    "llava-instruct", "conversations of human and gpt, as samples (JSON)", _fits, _read, Sample, task_of=type_of
)
