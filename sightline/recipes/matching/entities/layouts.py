"""Labelled pairs of records in the layouts that people have: Deepmatcher's tables, WDC Products' files, one CSV file.

Deepmatcher: `tableA.csv`, `tableB.csv`, and `train.csv`, `valid.csv`, `test.csv` of ids and labels. WDC Products (and
what its authors publish in its form): `*_train_*.json.gz`, `*_valid_*.json.gz`, `*_gs.json.gz` of rows with `_left` and
`_right`. One CSV file: columns `ltable_NAME` and `rtable_NAME` with `gold` or `label`, as `py_entitymatching` has them;
it ships no split. A reader yields a split's pairs; the stage is `reading`.
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
    """The rows of a CSV file with a header, by column, white space around values taken off.

    Raises:
        InputError: no such file, no UTF-8, no header, a column named twice, or a row of another length.
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
    """The objects of a file of JSON lines, which may be packed by gzip (`.gz`).

    Raises:
        InputError: no such file, damaged, or a line that is no JSON object.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path} line {number}", _object(line, f"{path} line {number}")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path} cannot be read as JSON lines ({error}); fetch the file again") from error


def cell_of(row: Cells, name: str, where: str) -> str:
    """A value that must be there."""
    if not row.get(name):
        raise InputError(f"{where}: there is no {name!r}; the columns are {', '.join(row)}")
    return row[name]


def label_of(value: object, name: str, where: str) -> bool:
    """1 for a match and 0 for none, as a number, a word or a truth value."""
    found = _LABELS_TABLES.get(str(value).strip().lower())
    if found is None:
        raise InputError(f"{where}: {name} = {shorten(value)} is no label; write 1 for a match and 0 for none")
    return found


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); fetch the file again") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: {shorten(value)} is no JSON object; give one a line")
    return value


Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_SPLIT, _ORDER = 2701, 2702  # purposes of the random streams


def split_of(pairs: Sequence[EntityPair], split: Split, shares: tuple[int, int, int], seed: int) -> list[EntityPair]:
    """The part of the pairs that is `split`, as they stood: of matches and of others the same shares, drawn by seed."""
    rng = np.random.default_rng([seed, _SPLIT])
    wanted = SPLITS.index(split)
    chosen: list[int] = []
    for label in (True, False):
        places = [place for place, pair in enumerate(pairs) if pair.match is label]
        drawn = rng.permutation(places).tolist()
        bounds = [round(len(drawn) * sum(shares[:count]) / sum(shares)) for count in range(len(SPLITS) + 1)]
        chosen += drawn[bounds[wanted] : bounds[wanted + 1]]
    return [pairs[place] for place in sorted(chosen)]


def stratified(pairs: Sequence[EntityPair], seed: int) -> list[EntityPair]:
    """The pairs in an order drawn by seed in which the first n have the share of matches that all have, for every n.

    So whoever takes the first rows takes a stratified sample.
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
#: What the names of WDC's files say of a split.
_WDC = {"train": ("train",), "valid": ("valid",), "test": ("gs", "test")}
#: Columns of WDC's rows that tell whether they match.
_TELLING = frozenset({"id", "cluster_id"})
_SIDE = re.compile(r"([lr])table[._](.+)")
_LABELS = ("gold", "label")


@dataclass(frozen=True)
class EntitySource:
    """Where pairs are: a file or directory; `named` tells WDC's files apart where there are several of a split."""

    place: Path
    split: Split
    named: str = ""


@dataclass(frozen=True)
class EntityLayout:
    """A layout: the files that a source means, its pairs, and whether they are of the split that was asked for."""

    files: Callable[[EntitySource], list[Path]]
    read: Callable[[EntitySource], Iterator[EntityPair]]
    is_split: bool = True


def layout_of(place: Path) -> Name:
    """The layout that a place has.

    Raises:
        InputError: it does not exist, or has none of them.
    """
    if not place.exists():
        raise InputError(f"{place} does not exist; name a CSV file, or a folder of Deepmatcher's or WDC's files")
    if place.is_file() and place.suffix.lower() == ".csv":
        return "csv"
    if place.is_dir() and (place / _TABLES[0]).is_file():
        return "deepmatcher"
    if place.is_dir() and any(_packed(place)):
        return "wdc"
    raise InputError(f"{place} is no CSV file, and no folder with {_TABLES[0]} or with *.json.gz; name another")


def _deepmatcher_files(source: EntitySource) -> list[Path]:
    return [source.place / name for name in (*_TABLES, f"{source.split}.csv")]


def _deepmatcher(source: EntitySource) -> Iterator[EntityPair]:
    left, right, pairs = _deepmatcher_files(source)
    tables = [(path, _table(path)) for path in (left, right)]
    for number, (where, row) in enumerate(csv_rows(pairs)):
        records = []
        for name, (path, table) in zip(("ltable_id", "rtable_id"), tables, strict=True):
            key = cell_of(row, name, where)
            if key not in table:
                raise InputError(f"{where}: {name} = {key} is not in {path}; add the record or drop the row")
            records.append(table[key])
        match = label_of(row.get("label"), "label", where)
        yield EntityPair(id=f"{source.split}-{number:06d}", left=records[0], right=records[1], match=match)


def _table(path: Path) -> dict[str, Cells]:
    table: dict[str, Cells] = {}
    for where, row in csv_rows(path):
        key = cell_of(row, "id", where)
        if key in table:
            raise InputError(f"{where}: id {key} occurs twice; give it another")
        table[key] = {name: value for name, value in row.items() if name != "id"}
    return table


def _wdc_files(source: EntitySource) -> list[Path]:
    words = _WDC[source.split]
    found = [
        path
        for path in _packed(source.place)
        if source.named in path.name and set(re.split(r"[._-]", path.name)) & set(words)
    ]
    if len(found) != 1:
        there = ", ".join(path.name for path in found or _packed(source.place))
        raise InputError(
            f"{source.place} has {len(found)} files for {source.split} (there: {there}); set named to a part of one's "
            "name, such as train_small"
        )
    return found


def _wdc(source: EntitySource) -> Iterator[EntityPair]:
    (path,) = _wdc_files(source)
    for number, (where, row) in enumerate(json_rows(path)):
        sides = {side: _side(row, f"_{side}") for side in ("left", "right")}
        if not all(sides.values()):
            raise InputError(f"{where}: there are no columns *_left and *_right; the columns are {', '.join(row)}")
        match = label_of(row.get("label"), "label", where)
        yield EntityPair(id=f"{source.split}-{number:06d}", left=sides["left"], right=sides["right"], match=match)


def _side(row: dict[str, Any], suffix: str) -> Cells:
    """The attributes of one record, those that are ids left out: they would tell the label."""
    names = [name.removesuffix(suffix) for name in row if name.endswith(suffix)]
    told = {name: row[name + suffix] for name in names if name not in _TELLING}
    return {name: "" if value is None else " ".join(str(value).split()) for name, value in told.items()}


def _packed(place: Path) -> list[Path]:
    return sorted(path for path in place.glob("*.json*") if path.name.endswith((".json.gz", ".jsonl", ".jsonl.gz")))


def _one_file(source: EntitySource) -> Iterator[EntityPair]:
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
        match = label_of(row[label], label, where)
        yield EntityPair(
            id=f"{source.place.stem}-{row.get('_id') or number}", left=sides["l"], right=sides["r"], match=match
        )


LAYOUTS: dict[Name, EntityLayout] = {
    "deepmatcher": EntityLayout(_deepmatcher_files, _deepmatcher),
    "wdc": EntityLayout(_wdc_files, _wdc),
    "csv": EntityLayout(lambda source: [source.place], _one_file, is_split=False),
}
