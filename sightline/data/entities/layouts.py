"""Labelled pairs of records in the layouts that people have: Deepmatcher's tables, WDC Products' files, one CSV file.

Deepmatcher: `tableA.csv`, `tableB.csv`, and `train.csv`, `valid.csv`, `test.csv` of ids and labels. WDC Products (and
what its authors publish in its form): `*_train_*.json.gz`, `*_valid_*.json.gz`, `*_gs.json.gz` of rows with `_left` and
`_right`. One CSV file: columns `ltable_NAME` and `rtable_NAME` with `gold` or `label`, as `py_entitymatching` has them;
it ships no split. A reader yields a split's pairs; the stage is `reading`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sightline.data.entities.pairs import EntityPair
from sightline.data.entities.splitting import Split
from sightline.data.entities.tables import Cells, cell_of, csv_rows, json_rows, label_of
from sightline.errors import InputError

Name = Literal["deepmatcher", "wdc", "csv"]
_TABLES = ("tableA.csv", "tableB.csv")
#: What the names of WDC's files say of a split.
_WDC = {"train": ("train",), "valid": ("valid",), "test": ("gs", "test")}
#: Columns of WDC's rows that tell whether they match.
_TELLING = frozenset({"id", "cluster_id"})
_SIDE = re.compile(r"([lr])table[._](.+)")
_LABELS = ("gold", "label")


@dataclass(frozen=True)
class Source:
    """Where pairs are: a file or directory; `named` tells WDC's files apart where there are several of a split."""

    place: Path
    split: Split
    named: str = ""


@dataclass(frozen=True)
class Layout:
    """A layout: the files that a source means, its pairs, and whether they are of the split that was asked for."""

    files: Callable[[Source], list[Path]]
    read: Callable[[Source], Iterator[EntityPair]]
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


def _deepmatcher_files(source: Source) -> list[Path]:
    return [source.place / name for name in (*_TABLES, f"{source.split}.csv")]


def _deepmatcher(source: Source) -> Iterator[EntityPair]:
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


def _wdc_files(source: Source) -> list[Path]:
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


def _wdc(source: Source) -> Iterator[EntityPair]:
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


def _one_file(source: Source) -> Iterator[EntityPair]:
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


LAYOUTS: dict[Name, Layout] = {
    "deepmatcher": Layout(_deepmatcher_files, _deepmatcher),
    "wdc": Layout(_wdc_files, _wdc),
    "csv": Layout(lambda source: [source.place], _one_file, is_split=False),
}
