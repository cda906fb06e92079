"""LLaVA-RLHF (arXiv 2309.14525): a conversation, two answers to its end, and which of them people preferred.

Columns as in the authors' `data_utils_rm.py`: `image`, `conversations` (sometimes within a list of one), `output_1` and
`output_2` (a turn each), `preference` 1 or 2. The conversation's own last answer only marks the place.
"""

from sightline.config.problems import shorten
from sightline.data.formats.conversations import from_the_user, pair_drafts, reply, turn_of, turns_of
from sightline.data.formats.drafts import BadRow, Columns, Drafts, Layout, ReadConfig, holds, known, pictures_of
from sightline.records.rows import Turn


def _fits(columns: Columns) -> bool:
    return holds(columns, "conversations", "output_1", "output_2", "preference")


def _read(columns: Columns, _: ReadConfig) -> Drafts:
    told = columns.get("conversations")
    nested = isinstance(told, list) and len(told) == 1 and isinstance(told[0], list)
    turns = turns_of(told[0] if nested and isinstance(told, list) else told, "conversations")
    asked, left_out = from_the_user(turns[:-1] if turns and turns[-1].role == "assistant" else turns)
    yield from left_out
    preference = columns.get("preference")
    if preference not in (1, 2):
        raise BadRow(f"preference = {shorten(preference)} is neither 1 nor 2")
    better, worse = (_answer(columns, f"output_{number}") for number in (preference, 3 - preference))
    pictures = pictures_of(columns, "image", "images")
    yield from pair_drafts((*asked, better), (*asked, worse), pictures, known(columns, "id", "preference"))


def _answer(columns: Columns, name: str) -> Turn:
    """The text alone: the turn's `from` names a model."""
    told = columns.get(name)
    return reply(told) if isinstance(told, str) else turn_of({**(told or {}), "from": "gpt"}, name)


LLAVA_RLHF = Layout("llava-rlhf", "a conversation, output_1, output_2 and preference (JSON)", _fits, _read)
