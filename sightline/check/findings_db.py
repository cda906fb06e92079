"""Temporary SQLite store of all rows, images and findings, which need not fit in memory.

It counts and sorts findings; `findings` defines their meaning.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from sightline.check.findings import CHECKS, CheckFinding

_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE image (name TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID;
CREATE TABLE trouble (image INTEGER, name TEXT, reason TEXT);
CREATE INDEX of_image ON trouble (image);
CREATE TABLE place (row INTEGER PRIMARY KEY, id TEXT, location TEXT);
CREATE TABLE finding (row INTEGER, name TEXT, benchmark TEXT, reason TEXT);
"""
_EXAMPLES = 3

Trouble = tuple[str, str]


class FindingsDb:
    """The open database; close it before deleting its folder."""

    def __init__(self, path: Path) -> None:
        self._file = sqlite3.connect(path)
        self._file.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def image(self, name: str) -> int | None:
        """Return the number of a known image."""
        found = self._file.execute("SELECT number FROM image WHERE name = ?", (name,)).fetchone()
        return None if found is None else int(found[0])

    def add_images(self, images: Iterable[tuple[str, int]], troubles: Iterable[tuple[int, str, str]]) -> None:
        """Add images with their numbers, and their problems: (image, check, reason)."""
        self._file.executemany("INSERT INTO image VALUES (?, ?)", images)
        self._file.executemany("INSERT INTO trouble VALUES (?, ?, ?)", troubles)

    def troubles(self, image: int) -> list[Trouble]:
        """Return an image's problems: (check, reason)."""
        return self._file.execute("SELECT name, reason FROM trouble WHERE image = ?", (image,)).fetchall()

    def add_places(self, places: Iterable[tuple[int, str, str]]) -> None:
        """Add rows: (number, id, place)."""
        self._file.executemany("INSERT INTO place VALUES (?, ?, ?)", places)

    def add_findings(self, findings: Iterable[tuple[int, str, str, str]]) -> None:
        """Add findings: (row, check, benchmark, reason)."""
        self._file.executemany("INSERT INTO finding VALUES (?, ?, ?, ?)", findings)

    def finish(self) -> None:
        """Index the findings; call it after the last insert and before the first query."""
        self._file.execute("CREATE INDEX by_check ON finding (name, benchmark, row)")
        self._file.execute("CREATE INDEX by_row ON finding (row)")

    def count(self, check: str, benchmark: str = "") -> int:
        """Return how many rows have such a finding."""
        query = "SELECT COUNT(DISTINCT row) FROM finding WHERE name = ? AND benchmark = ?"
        return int(self._file.execute(query, (check, benchmark)).fetchone()[0])

    def removable(self) -> int:
        """Return how many rows a cleaned copy would leave out."""
        names = [name for name, check in CHECKS.items() if check.removes]
        query = f"SELECT COUNT(DISTINCT row) FROM finding WHERE name IN ({', '.join('?' * len(names))})"
        return int(self._file.execute(query, names).fetchone()[0])

    def examples(self, check: str, benchmark: str = "") -> tuple[str, ...]:
        """Return the ids, or places without an id, of the first rows with such a finding."""
        query = (
            "SELECT DISTINCT id, location FROM finding JOIN place USING (row) WHERE name = ? AND benchmark = ? "
            "ORDER BY row LIMIT ?"
        )
        found = self._file.execute(query, (check, benchmark, _EXAMPLES))
        return tuple(str(name or place) for name, place in found)

    def findings(self) -> Iterator[CheckFinding]:
        """Yield all findings in the order of rows."""
        query = (
            "SELECT row, id, location, name, benchmark, reason FROM finding JOIN place USING (row) "
            "ORDER BY finding.row, finding.rowid"
        )
        for row, name, place, check, benchmark, reason in self._file.execute(query):
            removes = CHECKS[check].removes
            yield CheckFinding(row=row, id=name, where=place, check=check, of=benchmark, reason=reason, removes=removes)
