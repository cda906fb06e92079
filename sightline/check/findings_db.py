"""What a check must remember of every row and image and cannot hold in memory: an sqlite file that is deleted after.

It counts and sorts findings; what they mean is `findings`.
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


class Scratch:
    """The file, opened; close it before its folder is deleted."""

    def __init__(self, path: Path) -> None:
        self._file = sqlite3.connect(path)
        self._file.executescript(_TABLES)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def image(self, name: str) -> int | None:
        """The number of an image that was seen."""
        found = self._file.execute("SELECT number FROM image WHERE name = ?", (name,)).fetchone()
        return None if found is None else int(found[0])

    def add_images(self, images: Iterable[tuple[str, int]], troubles: Iterable[tuple[int, str, str]]) -> None:
        """Images with their numbers, and what is wrong with them: (image, check, reason)."""
        self._file.executemany("INSERT INTO image VALUES (?, ?)", images)
        self._file.executemany("INSERT INTO trouble VALUES (?, ?, ?)", troubles)

    def troubles(self, image: int) -> list[Trouble]:
        """What is wrong with an image: (check, reason)."""
        return self._file.execute("SELECT name, reason FROM trouble WHERE image = ?", (image,)).fetchall()

    def add_places(self, places: Iterable[tuple[int, str, str]]) -> None:
        """Rows by number, with id and place."""
        self._file.executemany("INSERT INTO place VALUES (?, ?, ?)", places)

    def add_findings(self, findings: Iterable[tuple[int, str, str, str]]) -> None:
        """What was found: (row, check, benchmark, reason)."""
        self._file.executemany("INSERT INTO finding VALUES (?, ?, ?, ?)", findings)

    def finish(self) -> None:
        """To be called after the last finding and before the first question about them."""
        self._file.execute("CREATE INDEX by_check ON finding (name, benchmark, row)")
        self._file.execute("CREATE INDEX by_row ON finding (row)")

    def count(self, check: str, benchmark: str = "") -> int:
        """How many rows have such a finding."""
        query = "SELECT COUNT(DISTINCT row) FROM finding WHERE name = ? AND benchmark = ?"
        return int(self._file.execute(query, (check, benchmark)).fetchone()[0])

    def removable(self) -> int:
        """How many rows a cleaned copy would not have."""
        names = [name for name, check in CHECKS.items() if check.removes]
        query = f"SELECT COUNT(DISTINCT row) FROM finding WHERE name IN ({', '.join('?' * len(names))})"
        return int(self._file.execute(query, names).fetchone()[0])

    def examples(self, check: str, benchmark: str = "") -> tuple[str, ...]:
        """Ids, or where there is none places, of the first rows that have it."""
        query = (
            "SELECT DISTINCT id, location FROM finding JOIN place USING (row) WHERE name = ? AND benchmark = ? "
            "ORDER BY row LIMIT ?"
        )
        found = self._file.execute(query, (check, benchmark, _EXAMPLES))
        return tuple(str(name or place) for name, place in found)

    def findings(self) -> Iterator[CheckFinding]:
        """All findings in the order of rows."""
        query = (
            "SELECT row, id, location, name, benchmark, reason FROM finding JOIN place USING (row) "
            "ORDER BY finding.row, finding.rowid"
        )
        for row, name, place, check, benchmark, reason in self._file.execute(query):
            removes = CHECKS[check].removes
            yield CheckFinding(row=row, id=name, where=place, check=check, of=benchmark, reason=reason, removes=removes)
