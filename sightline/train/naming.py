"""Errors of the encoder name the row at fault: file and line, id, pictures, and the command that finds all such rows.

`models.encoding` sees prompts and answers and no rows, and many rows have the same prompt.
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
def naming(
    rows: Sequence[Pair | Sample], vlm: VLM, place: Path | None = None, folder: Path | None = None
) -> Iterator[None]:
    """Put the row before what is refused: the only one of `rows`, or the first whose prompt or picture is refused.

    `place` is the directory or file with the rows, `folder` that of their pictures where their paths are relative.

    Raises:
        InputError: within.
    """
    try:
        yield
    except RowTooLong:
        raise
    except InputError as error:
        one = rows[0] if len(rows) == 1 else next((row for row in rows if _is_refused(row, vlm, folder)), None)
        if one is None:
            raise
        checked = place is not None and samples_file(place).name == PAIRS  # a check takes pairs
        remedy = f"; `sightline check {place} --model {vlm.path}` finds all such rows" if checked else ""
        raise InputError(f"{_described(one, place)}: {error}{remedy}") from error


def _is_refused(row: Pair | Sample, vlm: VLM, folder: Path | None) -> bool:
    try:
        encode_prefix(vlm, prefix_of(row, folder or Path()))
    except InputError:
        return True
    return False


def _described(row: Pair | Sample, place: Path | None) -> str:
    kind = "pair" if isinstance(row, Pair) else "sample"
    found = f"{kind} {shorten(row.id)}" if place is None else f"{row_place(place, row.id)} (id {shorten(row.id)}"
    pictures = ", ".join(_relative(name, place) for name in row.images)
    shown = f"picture {brief(pictures)}" if len(row.images) == 1 else f"pictures {brief(pictures)}"
    if place is None:
        return f"{found} ({shown})" if row.images else found
    return f"{found}, {shown})" if row.images else f"{found})"


def _relative(name: str, place: Path | None) -> str:
    """A picture's path as the row has it."""
    if place is None:
        return name
    folder = (place if place.is_dir() else place.parent).absolute()
    return str(Path(name).relative_to(folder)) if Path(name).is_relative_to(folder) else name
