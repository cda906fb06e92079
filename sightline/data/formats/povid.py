"""POVID (arXiv 2402.11411): LLaVA's rows with a second conversation, `rejected_conversations`, of corrupted answers.

Columns as in the authors' `train_dpo.py`: `id`, `image`, and `conversations` and
`rejected_conversations` of turns with `from` and `value`.
"""

from sightline.data.formats.conversations import from_the_user, pair_drafts, turns_of
from sightline.data.formats.drafts import Columns, Drafts, Layout, ReadConfig, holds, known, pictures_of


def _fits(columns: Columns) -> bool:
    return holds(columns, "conversations", "rejected_conversations")


def _read(columns: Columns, _: ReadConfig) -> Drafts:
    better, left_out = from_the_user(turns_of(columns.get("conversations"), "conversations"))
    worse = from_the_user(turns_of(columns.get("rejected_conversations"), "rejected_conversations"))[0]
    yield from left_out
    yield from pair_drafts(better, worse, pictures_of(columns, "image", "images"), known(columns, "id"))


POVID = Layout("povid", "LLaVA's rows with conversations and rejected_conversations (JSON)", _fits, _read)
