"""Labeled pairs of lamps in each supported layout: six pairs, two of which match."""

import csv
import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from sightline.recipes.matching.entities.pairs import EntityPair

LEFT = {"a0": ("Lumo LX-20 lamp", "Lumo", "20"), "a1": ("Orba globe", "Orba", ""), "a2": ("Tik clock", "Tik", "9")}
RIGHT = {"b0": ("Lumo lamp LX20", "Lumo", "21"), "b1": ("Orba globe 30 cm", "", "44"), "b2": ("Sena vase", "Sena", "5")}
LABELS = (("a0", "b0", 1), ("a0", "b1", 0), ("a1", "b1", 1), ("a1", "b2", 0), ("a2", "b0", 0), ("a2", "b2", 0))
NAMES = ("title", "brand", "price")


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_deepmatcher(folder: Path, split: str = "train") -> Path:
    write_csv(folder / "tableA.csv", ("id", *NAMES), ((key, *row) for key, row in LEFT.items()))
    write_csv(folder / "tableB.csv", ("id", *NAMES), ((key, *row) for key, row in RIGHT.items()))
    write_csv(folder / f"{split}.csv", ("ltable_id", "rtable_id", "label"), LABELS)
    return folder


def write_wdc(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / name, "wt", encoding="utf-8") as file:
        for number, (one, other, label) in enumerate(LABELS):
            sides = {"left": (one, LEFT[one]), "right": (other, RIGHT[other])}
            row: dict[str, object] = {"pair_id": number, "label": label, "is_hard_negative": False}
            for side, (key, values) in sides.items():
                row |= {f"id_{side}": key, f"cluster_id_{side}": key}
                row |= {f"{field}_{side}": value or None for field, value in zip(NAMES, values, strict=True)}
            file.write(json.dumps(row) + "\n")
    return folder


def write_one_file(path: Path, copies: int = 1) -> Path:
    header = ["_id", "ltable_id", "rtable_id", *(f"{side}table_{name}" for side in "lr" for name in NAMES), "gold"]
    rows = (
        (6 * copy + number, one, other, *LEFT[one], *RIGHT[other], label)
        for copy in range(copies)
        for number, (one, other, label) in enumerate(LABELS)
    )
    return write_csv(path, header, rows)


def pair(left: Mapping[str, str], right: Mapping[str, str], *, match: bool, name: str = "p") -> EntityPair:
    return EntityPair(id=name, left=dict(left), right=dict(right), match=match, noun="lamp")
