"""The ledger of a study directory: an SQLite file with every job that was started, its cost and its state.

One process writes it, the one that runs the study; others may read it meanwhile. Results stay in the jobs' directories;
the ledger holds keys, states, seconds, counts and numbers.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal

from sightline.errors import InputError

LEDGER = "ledger.sqlite"
State = Literal["running", "done", "failed", "stopped"]

#: One transaction: readers find either an empty file or all tables.
_TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS pieces (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, label TEXT NOT NULL, folder TEXT NOT NULL, command TEXT NOT NULL,
    seed INTEGER NOT NULL, state TEXT NOT NULL, began REAL NOT NULL, seconds REAL, counts TEXT, numbers TEXT, note TEXT
);
CREATE TABLE IF NOT EXISTS studies (name TEXT PRIMARY KEY, config TEXT NOT NULL, began REAL NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    study TEXT NOT NULL, arm TEXT NOT NULL, seed INTEGER NOT NULL, train TEXT NOT NULL, eval TEXT,
    PRIMARY KEY (study, arm, seed)
);
CREATE TABLE IF NOT EXISTS plans (study TEXT PRIMARY KEY, plan TEXT NOT NULL);
COMMIT;
"""


def has_ledger(directory: Path) -> bool:
    """Whether studies were run in `directory`; an empty file is a ledger that is being created."""
    path = directory / LEDGER
    return path.exists() and path.stat().st_size > 0


@dataclass(frozen=True)
class LedgerEntry:
    """A job in the ledger; `seconds` are summed over its restarts."""

    key: str
    kind: str
    label: str
    folder: str
    command: str
    seed: int
    state: State
    seconds: float | None
    counts: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    note: str = ""


class Ledger:
    """The ledger in a study's directory; with `write` it is created if missing."""

    def __init__(self, directory: Path, *, write: bool = False) -> None:
        self.path = directory / LEDGER
        if write:
            directory.mkdir(parents=True, exist_ok=True)
            with self._open() as ledger:
                ledger.executescript(_TABLES)
        elif not has_ledger(directory):
            raise InputError(f"{directory} holds no study (no {LEDGER}); run `sightline study STUDY.yaml`.")

    @classmethod
    def mended(cls, directory: Path, say: Callable[[str], None]) -> "Ledger":
        """The ledger for the process that writes it. A damaged file is moved aside, damaged rows are deleted.

        `say` receives a line about each. Only the ledger loses data: `resume` reads finished jobs from their
        directories again.

        Raises:
            InputError: another process keeps the file locked.
        """
        try:
            ledger = cls(directory, write=True)
            ledger._check()
        except InputError as error:
            if isinstance(error.__cause__, sqlite3.OperationalError):
                raise  # nothing is damaged: it is in use, or cannot be written
            aside = _free(directory / f"{LEDGER}.damaged")
            (directory / LEDGER).replace(aside)
            say(f"{directory / LEDGER} was damaged and is now {aside.name}; it is rebuilt from the finished jobs")
            ledger = cls(directory, write=True)
        bad = ledger._take_out_unreadable()
        if bad:
            say(f"{ledger.path}: {bad} damaged rows are deleted; those of finished jobs are rebuilt")
        return ledger

    def _check(self) -> None:
        with self._open() as ledger:
            found = ledger.execute("PRAGMA quick_check").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)

    def _take_out_unreadable(self) -> int:
        """Delete the rows of jobs and studies that cannot be read; return their number."""
        with self._open() as ledger:
            pieces = ledger.execute("SELECT * FROM pieces").fetchall()
            bad = [(row["key"],) for row in pieces if not _is_readable(row)]
            ledger.executemany("DELETE FROM pieces WHERE key IS ?", bad)
            studies = ledger.execute("SELECT name, config FROM studies").fetchall()
            lost = [(row["name"],) for row in studies if not _is_json(row["config"])]
            ledger.executemany("DELETE FROM studies WHERE name IS ?", lost)
        return len(bad) + len(lost)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
                connection.row_factory = sqlite3.Row
                yield connection
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self.path} cannot be used ({error}); move it away; the next run rebuilds it from the finished jobs"
            ) from error

    def begin_study(
        self, name: str, config: Mapping[str, object], runs: Sequence[tuple[str, int, str, str | None]], plan: str
    ) -> None:
        """Record the runs of a study; its earlier runs are deleted, their jobs kept.

        `plan` is the plan as JSON, so that the study can be reported after its config files changed or were deleted.
        """
        with self._open() as ledger:
            text = json.dumps(config, sort_keys=True)
            ledger.execute("INSERT OR REPLACE INTO studies VALUES (?, ?, ?)", (name, text, time.time()))
            ledger.execute("DELETE FROM runs WHERE study = ?", (name,))
            ledger.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", [(name, *run) for run in runs])
            ledger.execute("INSERT OR REPLACE INTO plans VALUES (?, ?)", (name, plan))

    def begin(self, entry: LedgerEntry) -> None:
        """Record that a job was started or restarted."""
        values = (entry.key, entry.kind, entry.label, entry.folder, entry.command, entry.seed, time.time())
        with self._open() as ledger:
            ledger.execute(
                "INSERT INTO pieces (key, kind, label, folder, command, seed, began, state)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 'running')"
                " ON CONFLICT (key) DO UPDATE SET state = 'running', label = excluded.label,"
                " folder = excluded.folder, command = excluded.command, note = NULL",
                values,
            )

    def end(self, key: str, state: State, *, seconds: float, note: str = "", **found: Mapping[str, float]) -> None:
        """Record how a job ended, with the `counts` and `numbers` of its manifest if it is done."""
        counts, numbers = (json.dumps(dict(found.get(name, {}))) for name in ("counts", "numbers"))
        with self._open() as ledger:
            ledger.execute(
                "UPDATE pieces SET state = ?, seconds = coalesce(seconds, 0) + ?, counts = ?, numbers = ?, note = ?"
                " WHERE key = ?",
                (state, seconds, counts, numbers, note, key),
            )

    def entries(self) -> dict[str, LedgerEntry]:
        """Every job by its key, in the order in which they were started."""
        with self._open() as ledger:
            rows = ledger.execute("SELECT * FROM pieces ORDER BY began").fetchall()
        try:
            return {row["key"]: _entry(row) for row in rows}
        except ValueError as error:
            raise InputError(f"{self.path} has damaged rows ({error}); run the study again to repair it") from error

    def studies(self) -> dict[str, dict[str, object]]:
        """The config of every study of this directory, by name, the latest last."""
        with self._open() as ledger:
            rows = ledger.execute("SELECT name, config FROM studies ORDER BY began").fetchall()
        return {row["name"]: json.loads(row["config"]) for row in rows}

    def plans(self) -> dict[str, str]:
        """The plan of every study as JSON, by name; a ledger of an earlier version has none."""
        with self._open() as ledger:
            if not ledger.execute("SELECT 1 FROM sqlite_master WHERE name = 'plans'").fetchone():
                return {}
            rows = ledger.execute("SELECT study, plan FROM plans").fetchall()
        return {row["study"]: row["plan"] for row in rows}

    def runs(self, study: str) -> list[tuple[str, int, str, str | None]]:
        """(arm, seed, key of the training, key of the evaluation) of a study, in its order."""
        with self._open() as ledger:
            found = ledger.execute("SELECT arm, seed, train, eval FROM runs WHERE study = ? ORDER BY rowid", (study,))
            return [tuple(row) for row in found.fetchall()]

    def remove(self, keys: Sequence[str]) -> None:
        """Delete jobs."""
        with self._open() as ledger:
            ledger.executemany("DELETE FROM pieces WHERE key = ?", [(key,) for key in keys])


def _is_readable(row: sqlite3.Row) -> bool:
    texts = (row["key"], row["kind"], row["label"], row["folder"], row["command"], row["state"])
    counted = all(_is_json(row[name] or "{}") for name in ("counts", "numbers"))
    numbers = all(isinstance(row[name], int | float | None) for name in ("seed", "began", "seconds"))
    return counted and numbers and all(isinstance(text, str) for text in texts)


def _is_json(text: object) -> bool:
    try:
        return isinstance(json.loads(text if isinstance(text, str) else ""), dict)
    except ValueError:
        return False


def _free(path: Path) -> Path:
    """The path, with a number where there is such a file already."""
    return next(p for number in count() if not (p := path.with_name(f"{path.name}{number or ''}")).exists())


def _entry(row: sqlite3.Row) -> LedgerEntry:
    columns = {name: row[name] for name in ("key", "kind", "label", "folder", "command", "seed", "state", "seconds")}
    return LedgerEntry(
        **columns,
        counts=json.loads(row["counts"] or "{}"),
        numbers=json.loads(row["numbers"] or "{}"),
        note=row["note"] or "",
    )
