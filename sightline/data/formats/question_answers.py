"""Layouts with the columns question, chosen and rejected: RLAIF-V (arXiv 2405.17220) and MMPR (arXiv 2411.10442).

RLAIF-V, as on its card: `ds_name`, `image` (bytes and path), `question`, `chosen`, `rejected`, `origin_dataset`,
`origin_split`, `idx`, `image_path`. MMPR, as on its card: `image` (a path, or several), `question` (`<image>` where
each stands), `chosen`, `rejected`.
"""

from collections.abc import Mapping

from sightline.data.formats.conversations import pair_drafts, question
from sightline.data.formats.drafts import Columns, Drafts, Layout, ReadConfig, holds, known, pictures_of, text_of


def _fits_rlaif_v(columns: Columns) -> bool:
    return _fits(columns) and (_is_embedded(columns.get("image")) or holds(columns, "origin_dataset"))


def _fits_mmpr(columns: Columns) -> bool:
    return _fits(columns) and not _fits_rlaif_v(columns)


def _fits(columns: Columns) -> bool:
    return all(isinstance(columns.get(name), str) for name in ("question", "chosen", "rejected"))


def _is_embedded(value: object) -> bool:
    return isinstance(value, bytes | Mapping)


def _read(columns: Columns, _: ReadConfig) -> Drafts:
    asked = text_of(columns, "question")
    better, worse = (question(asked, text_of(columns, name)) for name in ("chosen", "rejected"))
    origin = known(columns, "id", "idx", "ds_name", "origin_dataset", "origin_split", "image_path")
    yield from pair_drafts(better, worse, pictures_of(columns, "image", "images"), origin)


RLAIF_V = Layout("rlaif-v", "question, chosen, rejected beside an embedded image (Parquet)", _fits_rlaif_v, _read)
MMPR = Layout("mmpr", "question, chosen, rejected and the path of one image or several (JSONL)", _fits_mmpr, _read)
