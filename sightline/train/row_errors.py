"""Errors of the encoder located in the data: file and line, id, images, and the command that finds all such rows.

`models.encoding` knows prompts and answers but no rows, and many rows have the same prompt.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sightline.config.problems import brief, shorten
from sightline.data.preference_dataset import PAIRS
from sightline.data.samples import row_place, samples_file
from sightline.errors import InputError
from sightline.models.encoding import RowTooLong, encode_prefix
from sightline.models.requests import prefix_of
from sightline.models.vlm import VLM
from sightline.records.rows import Pair, Sample


@contextmanager
def locate_errors(
    rows: Sequence[Pair | Sample], vlm: VLM, place: Path | None = None, folder: Path | None = None
) -> Iterator[None]:
    """Prefix an encoding error with its row: the only one of `rows`, or the first whose prompt or image is rejected.

    `place` is the directory or file of the rows, `folder` that of their images if their paths are relative.

    Raises:
        InputError: raised in the body, with the row's location.
    """
    try:
        yield
    except RowTooLong:
        raise
    except InputError as error:
        one = rows[0] if len(rows) == 1 else next((row for row in rows if _is_rejected(row, vlm, folder)), None)
        if one is None:
            raise
        checked = place is not None and samples_file(place).name == PAIRS  # `sightline check` accepts pairs only
        remedy = f"; `sightline check {place} --model {vlm.path}` finds all such rows" if checked else ""
        raise InputError(f"{_describe(one, place)}: {error}{remedy}") from error


def _is_rejected(row: Pair | Sample, vlm: VLM, folder: Path | None) -> bool:
    try:
        encode_prefix(vlm, prefix_of(row, folder or Path()))
    except InputError:
        return True
    return False


def _describe(row: Pair | Sample, place: Path | None) -> str:
    kind = "pair" if isinstance(row, Pair) else "sample"
    found = f"{kind} {shorten(row.id)}" if place is None else f"{row_place(place, row.id)} (id {shorten(row.id)}"
    pictures = ", ".join(_relative(name, place) for name in row.images)
    shown = f"picture {brief(pictures)}" if len(row.images) == 1 else f"pictures {brief(pictures)}"
    if place is None:
        return f"{found} ({shown})" if row.images else found
    return f"{found}, {shown})" if row.images else f"{found})"


def _relative(name: str, place: Path | None) -> str:
    """An image's path as the row gives it."""
    if place is None:
        return name
    folder = (place if place.is_dir() else place.parent).absolute()
    return str(Path(name).relative_to(folder)) if Path(name).is_relative_to(folder) else name
