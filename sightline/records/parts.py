"""One file of rows that several processes write: each appends to a part of its own, and one merges the parts.

The merged file has the order and the bytes that one process would have written. `models.processes` starts and joins the
processes; a killed run leaves parts, which the next one merges, whatever its number of processes.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TypeVar

from pydantic import BaseModel

from sightline.records.store import MAX_LINE, atomic_write, placed_rows

T = TypeVar("T", bound=BaseModel)
_MARK = "part"


def part_file(path: Path, rank: int, count: int) -> Path:
    """The file to which process `rank` of `count` appends; one process writes the file itself."""
    return path if count == 1 else path.with_name(f"{path.stem}.{_MARK}-{rank}{path.suffix}")


def merge_parts(path: Path, row_type: type[T], key: Callable[[T], str], order: Mapping[str, int]) -> None:
    """Merge the parts of `path`, if there are any, into it: rows in `order` of their keys, each key once.

    Keys that are not in `order` come last. A file whose rows are in order already is left alone. Memory holds keys and
    offsets, not rows; a kill at any moment loses no row.
    """
    parts = sorted(path.parent.glob(f"{path.stem}.{_MARK}-*{path.suffix}"))
    sources = [source for source in (path, *parts) if source.exists()]
    places: dict[str, tuple[int, int, int]] = {}
    total = 0
    for number, source in enumerate(sources):
        for _, start, row in placed_rows(source, row_type, allow_torn_tail=True):
            total += 1
            places.setdefault(key(row), (order.get(key(row), len(order)), number, start))
    wanted = sorted(places.values())
    if parts or list(places.values()) != wanted or len(places) < total:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            file.writelines(_lines(sources, wanted))
    for part in parts:
        part.unlink()


def _lines(sources: list[Path], places: list[tuple[int, int, int]]) -> Iterator[bytes]:
    files: list[IO[bytes]] = [source.open("rb") for source in sources]
    try:
        for _, number, start in places:
            files[number].seek(start)
            yield files[number].readline(MAX_LINE).removesuffix(b"\n") + b"\n"
    finally:
        for file in files:
            file.close()
