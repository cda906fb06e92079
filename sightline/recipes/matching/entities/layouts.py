"""Labeled pairs of records in common layouts: Deepmatcher's tables, WDC Products' files, one CSV file.

Deepmatcher: `tableA.csv`, `tableB.csv`, and `train.csv`, `valid.csv`, `test.csv` of ids and labels. WDC Products (and
other files in its format): `*_train_*.json.gz`, `*_valid_*.json.gz`, `*_gs.json.gz` of rows with `_left` and `_right`.
One CSV file: columns `ltable_NAME` and `rtable_NAME` with `gold` or `label`, as in `py_entitymatching`, without a
split. A reader yields a split's pairs; the stage is `reading`.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.recipes.matching.entities.pairs import EntityPair

Cells = dict[str, str]
_LABELS_TABLES = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}


def csv_rows(path: Path) -> Iterator[tuple[str, Cells]]:
    """The rows of a CSV file with a header, by column, values stripped of white space.

    Raises:
        InputError: no such file, not UTF-8, no header, a duplicate column, or a row of another length.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            if not header or len(set(header)) < len(header):
                raise InputError(f"{path}: the header {shorten(header)} is empty or names a column twice; correct it")
            for cells in reader:
                where = f"{path} line {reader.line_num}"
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise InputError(f"{where}: {len(cells)} values for {len(header)} columns; correct the row")
                yield where, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a CSV file in UTF-8 ({error}); check the path") from error


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, optionally compressed by gzip (`.gz`).

    Raises:
        InputError: no such file, a damaged one, or a line that is not a JSON object.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path} line {number}", _object(line, f"{path} line {number}")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path} cannot be read as JSON lines ({error}); fetch the file again") from error


def get_cell(row: Cells, name: str, where: str) -> str:
    """A required value."""
    if not row.get(name):
        raise InputError(f"{where}: there is no {name!r}; the columns are {', '.join(row)}")
    return row[name]


def parse_label(value: object, name: str, where: str) -> bool:
    """1 for a match and 0 for none, as a number, a word or a boolean."""
    found = _LABELS_TABLES.get(str(value).strip().lower())
    if found is None:
        raise InputError(f"{where}: {name} = {shorten(value)} is not a label; write 1 for a match and 0 for none")
    return found


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); fetch the file again") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: {shorten(value)} is not a JSON object; write one per line")
    return value


Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_SPLIT, _ORDER = 2701, 2702  # purposes of the random streams


def take_split(pairs: Sequence[EntityPair], split: Split, shares: tuple[int, int, int], seed: int) -> list[EntityPair]:
    """The pairs of `split` in their order: of matches and of others the same shares, drawn by seed."""
    rng = np.random.default_rng([seed, _SPLIT])
    wanted = SPLITS.index(split)
    chosen: list[int] = []
    for label in (True, False):
        places = [place for place, pair in enumerate(pairs) if pair.match is label]
        drawn = rng.permutation(places).tolist()
        bounds = [round(len(drawn) * sum(shares[:count]) / sum(shares)) for count in range(len(SPLITS) + 1)]
        chosen += drawn[bounds[wanted] : bounds[wanted + 1]]
    return [pairs[place] for place in sorted(chosen)]


def stratify(pairs: Sequence[EntityPair], seed: int) -> list[EntityPair]:
    """The pairs in a seeded order whose first n have the overall share of matches, for every n.

    The first rows are thus always a stratified sample.
    """
    rng = np.random.default_rng([seed, _ORDER])
    placed: list[tuple[float, int, EntityPair]] = []
    for order, label in enumerate((True, False)):
        same = [pair for pair in pairs if pair.match is label]
        drawn = [same[place] for place in rng.permutation(len(same))]
        placed += [((rank + 0.5) / len(drawn), order, pair) for rank, pair in enumerate(drawn)]
    return [pair for _, _, pair in sorted(placed, key=lambda one: one[:2])]


Name = Literal["deepmatcher", "wdc", "csv"]
_TABLES = ("tableA.csv", "tableB.csv")
#: Parts of WDC's file names per split.
_WDC = {"train": ("train",), "valid": ("valid",), "test": ("gs", "test")}
#: Columns of WDC's rows that reveal the label.
_REVEALING = frozenset({"id", "cluster_id"})
_SIDE = re.compile(r"([lr])table[._](.+)")
_LABELS = ("gold", "label")


@dataclass(frozen=True)
class EntitySource:
    """The location of pairs: a file or directory; `named` selects among WDC's files if a split has several."""

    place: Path
    split: Split
    named: str = ""


@dataclass(frozen=True)
class EntityLayout:
    """A layout: the files of a source, its pairs, and whether they are already those of the requested split."""

    files: Callable[[EntitySource], list[Path]]
    read: Callable[[EntitySource], Iterator[EntityPair]]
    is_split: bool = True


def detect_layout(place: Path) -> Name:
    """The layout of a place.

    Raises:
        InputError: the place does not exist, or has none of the layouts.
    """
    if not place.exists():
        raise InputError(f"{place} does not exist; give a CSV file, or a folder of Deepmatcher's or WDC's files")
    if place.is_file() and place.suffix.lower() == ".csv":
        return "csv"
    if place.is_dir() and (place / _TABLES[0]).is_file():
        return "deepmatcher"
    if place.is_dir() and any(_json_files(place)):
        return "wdc"
    raise InputError(f"{place} is neither a CSV file nor a folder with {_TABLES[0]} or *.json.gz; give another")


def _deepmatcher_files(source: EntitySource) -> list[Path]:
    return [source.place / name for name in (*_TABLES, f"{source.split}.csv")]


def _read_deepmatcher(source: EntitySource) -> Iterator[EntityPair]:
    left, right, pairs = _deepmatcher_files(source)
    tables = [(path, _read_table(path)) for path in (left, right)]
    for number, (where, row) in enumerate(csv_rows(pairs)):
        records = []
        for name, (path, table) in zip(("ltable_id", "rtable_id"), tables, strict=True):
            key = get_cell(row, name, where)
            if key not in table:
                raise InputError(f"{where}: {name} = {key} is not in {path}; add the record or drop the row")
            records.append(table[key])
        match = parse_label(row.get("label"), "label", where)
        yield EntityPair(id=f"{source.split}-{number:06d}", left=records[0], right=records[1], match=match)


def _read_table(path: Path) -> dict[str, Cells]:
    table: dict[str, Cells] = {}
    for where, row in csv_rows(path):
        key = get_cell(row, "id", where)
        if key in table:
            raise InputError(f"{where}: id {key} occurs twice; change one")
        table[key] = {name: value for name, value in row.items() if name != "id"}
    return table


def _wdc_files(source: EntitySource) -> list[Path]:
    words = _WDC[source.split]
    found = [
        path
        for path in _json_files(source.place)
        if source.named in path.name and set(re.split(r"[._-]", path.name)) & set(words)
    ]
    if len(found) != 1:
        there = ", ".join(path.name for path in found or _json_files(source.place))
        raise InputError(
            f"{source.place} has {len(found)} files for {source.split} (there: {there}); set named to a part of one "
            "name, such as train_small"
        )
    return found


def _read_wdc(source: EntitySource) -> Iterator[EntityPair]:
    (path,) = _wdc_files(source)
    for number, (where, row) in enumerate(json_rows(path)):
        sides = {side: _read_record(row, f"_{side}") for side in ("left", "right")}
        if not all(sides.values()):
            raise InputError(f"{where}: there are no columns *_left and *_right; the columns are {', '.join(row)}")
        match = parse_label(row.get("label"), "label", where)
        yield EntityPair(id=f"{source.split}-{number:06d}", left=sides["left"], right=sides["right"], match=match)


def _read_record(row: dict[str, Any], suffix: str) -> Cells:
    """The attributes of one record, without ids, which would reveal the label."""
    names = [name.removesuffix(suffix) for name in row if name.endswith(suffix)]
    cells = {name: row[name + suffix] for name in names if name not in _REVEALING}
    return {name: "" if value is None else " ".join(str(value).split()) for name, value in cells.items()}


def _json_files(place: Path) -> list[Path]:
    return sorted(path for path in place.glob("*.json*") if path.name.endswith((".json.gz", ".jsonl", ".jsonl.gz")))


def _read_csv(source: EntitySource) -> Iterator[EntityPair]:
    for number, (where, row) in enumerate(csv_rows(source.place)):
        sides: dict[str, Cells] = {"l": {}, "r": {}}
        for name, value in row.items():
            found = _SIDE.fullmatch(name)
            if found is not None and found[2] != "id":
                sides[found[1]][found[2]] = value
        if not all(sides.values()):
            raise InputError(f"{where}: there are no columns ltable_* and rtable_*; the columns are {', '.join(row)}")
        label = next((name for name in _LABELS if name in row), None)
        if label is None:
            raise InputError(f"{where}: there is no column {' or '.join(_LABELS)}; the columns are {', '.join(row)}")
        match = parse_label(row[label], label, where)
        yield EntityPair(
            id=f"{source.place.stem}-{row.get('_id') or number}", left=sides["l"], right=sides["r"], match=match
        )


LAYOUTS: dict[Name, EntityLayout] = {
    "deepmatcher": EntityLayout(_deepmatcher_files, _read_deepmatcher),
    "wdc": EntityLayout(_wdc_files, _read_wdc),
    "csv": EntityLayout(lambda source: [source.place], _read_csv, is_split=False),
}
