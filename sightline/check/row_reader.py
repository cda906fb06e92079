"""Reader of raw pair rows, good or bad: an unreadable row is yielded with its problem instead of an error.

Use `data.preference_dataset.read_pairs` for rows that must be good. Images inside Parquet files stay there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from sightline.config.problems import describe
from sightline.data.preference_dataset import PAIRS, pair_from_columns
from sightline.errors import InputError
from sightline.records import Pair
from sightline.records.decoding import BYTE_ORDER_MARK, require_text, strict_problem, undecodable
from sightline.records.store import MAX_LINE

_BATCH = 64  # rows of a Parquet file in memory


@dataclass(frozen=True)
class RowImage:
    """An image of a row: its name, and its bytes if the dataset embeds them."""

    name: str
    data: bytes | None = None


@dataclass(frozen=True)
class RawRow:
    """A row: its number from 1, its place, and the pair with its images, or the `problem` with it."""

    number: int
    where: str
    pair: Pair | None
    images: tuple[RowImage, ...] = ()
    problem: str = ""


def count_rows(directory: Path) -> int:
    """Count the rows, for progress and sampling: lines, or what Parquet files declare.

    Raises:
        InputError: the directory holds no pairs, a file is compressed or UTF-16, or a Parquet file is invalid.
    """
    path = directory / PAIRS
    if path.is_file():
        require_text(path)
        with path.open("rb") as file:
            lines, last = 0, b"\n"
            while block := file.read(2**20):
                lines, last = lines + block.count(b"\n"), block[-1:]
        return lines + (last != b"\n")
    return sum(_parquet_rows(file) for file in _parquet_files(directory))


def read_raw(directory: Path) -> Iterator[RawRow]:
    """Yield the rows of a directory in order, from `pairs.jsonl` or else from Parquet files; skip blank lines."""
    path = directory / PAIRS
    rows = _lines(path) if path.is_file() else _records(directory)
    return (
        RawRow(number, where, *_parse(value, where))
        if isinstance(value, bytes | dict)
        else RawRow(number, where, None, (), value)
        for number, (where, value) in enumerate(rows, 1)
    )


def _lines(path: Path) -> Iterator[tuple[str, bytes | str]]:
    """Yield each line with its place; an overlong line gives its problem, and the rest of it is skipped."""
    with path.open("rb") as file:
        number, start, end = 0, 0, 0
        while line := file.readline(MAX_LINE):
            number, start, end = number + 1, end, end + len(line)
            where = f"{path.name} line {number}"
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                end = file.tell()
                yield where, f"longer than {MAX_LINE} bytes"
                continue
            if (problem := undecodable(line, start)) is not None:
                yield where, problem
                continue
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if line.strip():
                yield where, line


def _records(directory: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    for path in _parquet_files(directory):
        number = 0
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=_BATCH):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{path.name} row {number}", row
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path} cannot be read as Parquet ({reason}); build or download it again") from error


def _parse(value: bytes | dict[str, Any], where: str) -> tuple[Pair | None, tuple[RowImage, ...], str]:
    if isinstance(value, dict):
        return _from_columns(value, where)
    try:
        pair = Pair.model_validate_json(value)
    except ValidationError as error:
        return None, (), describe(error, Pair)
    if (problem := strict_problem(value)) is not None:
        return None, (), problem
    return pair, tuple(map(RowImage, pair.images)), ""


def _from_columns(row: dict[str, Any], where: str) -> tuple[Pair | None, tuple[RowImage, ...], str]:
    try:
        pair = pair_from_columns({**row, "images": []}, Path(), where)
        images = tuple(RowImage(image["path"] or "", image["bytes"]) for image in row["images"] or ())
    except InputError as error:
        return None, (), str(error).removeprefix(f"{where}: ")
    except (KeyError, TypeError) as error:
        return None, (), f"the images are none ({error!r})"
    return pair.model_copy(update={"images": tuple(image.name for image in images)}), images, ""


def _parquet_files(directory: Path) -> list[Path]:
    files = sorted(path for path in directory.glob("data/*.parquet") if path.is_file())
    if not files:
        raise InputError(f"{directory} holds neither {PAIRS} nor data/*.parquet; is it a directory of pairs?")
    return files


def _parquet_rows(path: Path) -> int:
    try:
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as Parquet ({reason}); build or download it again") from error
