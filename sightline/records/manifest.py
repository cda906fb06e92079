"""Provenance of a directory (`Manifest`), and the life cycle of the stage that fills it (`Stage`).

A stage runs nothing itself: the caller checks `done`, works, and calls `finish`. `hashing` computes the hashes, `store`
writes the files.
"""

import fcntl
import os
import subprocess
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, Field, ValidationError

import sightline
from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.records.hashing import hash_file, hash_json, hash_tree
from sightline.records.rows import Row
from sightline.records.store import read_json, write_json


class Computed(Row):
    """The hardware and number format of forward passes.

    `device` is the type ("cpu", "cuda") and `device_name` the name of the processor or GPU. `dtype` is that of the
    weights; with `autocast`, matrix products run in bfloat16. `opened` says what was opened and how: the model's name,
    the keys of `models.spec.ModelSpec` that are set, and the way in which its rows are computed.
    """

    device: str
    device_name: str
    dtype: str
    autocast: bool
    opened: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class ConfiguredInput:
    """An input with the settings by which it is read, where these change results: they count in its hash."""

    path: Path
    settings: Mapping[str, Any]


#: A file, the directory of an earlier stage or of a model, perhaps with settings.
StageInput = Path | ConfiguredInput


class Listener(Protocol):
    """A receiver of `Computed` records, such as a stage."""

    def add_computed(self, record: Computed) -> None:
        """Add a record, which may be a duplicate."""


_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()


def add_listener(listener: Listener) -> None:
    """Send every later record to `listener`, until it is removed or garbage-collected."""
    _listeners.add(listener)


def remove_listener(listener: Listener) -> None:
    """Send no more records to `listener`."""
    _listeners.discard(listener)


class ComputedRecords:
    """Keeps what it hears: a process that owns no stage passes it to the one that does."""

    def __init__(self) -> None:
        self.records: list[Computed] = []

    def add_computed(self, record: Computed) -> None:
        """Keep a record once."""
        if record not in self.records:
            self.records.append(record)


def record_computed(record: Computed) -> None:
    """Report the conditions of a forward pass to all listeners."""
    for listener in tuple(_listeners):
        listener.add_computed(record)


MANIFEST = "manifest.json"
_PACKAGES = ("accelerate", "datasets", "numpy", "peft", "pillow", "safetensors", "tokenizers", "torch", "transformers")

#: (device, inode) of the directories that this process has locked -> descriptor that holds the lock.
_held: dict[tuple[int, int], int] = {}


class Manifest(Row):
    """The provenance of a directory. `inputs` maps a name to a content hash, `dropped` a reason to a count.

    `computed` has the conditions of all forward passes by all processes; it is empty if no model ran, and in manifests
    older than the field. `seconds` is the wall time of the process that finished; `runs` counts the processes, so if it
    is above 1, earlier ones were interrupted and their time is not in `seconds`. `git_revision` ends in `-dirty` if
    tracked files were modified, and is None outside a checkout.
    """

    stage: str
    config: dict[str, Any]
    config_hash: str
    inputs: dict[str, str]
    seed: int
    versions: dict[str, str]
    git_revision: str | None
    counts: dict[str, int] = Field(default_factory=dict)
    dropped: dict[str, int] = Field(default_factory=dict)
    numbers: dict[str, float] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    computed: tuple[Computed, ...] = ()
    seconds: float = 0.0
    runs: int = 1
    complete: bool = False

    @property
    def key(self) -> str:
        """The hash of everything that determines the result: stage, config, inputs and seed."""
        return hash_json([self.stage, self.config_hash, self.inputs, self.seed])


class Stage:
    """One run of a command in an output directory, by one process at a time."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest
        self._start = time.monotonic()
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, directory: Path, stage: str, config: BaseModel, inputs: Mapping[str, StageInput], seed: int = 0
    ) -> "Stage":
        """Start a stage in a new or empty directory, resume an interrupted one, or return a completed one (`done`).

        An incomplete manifest is written at once; it identifies the run for resuming. `inputs` maps names to files,
        directories of earlier stages, and model directories.

        Raises:
            InputError: an input is missing or incomplete, the directory belongs to another run or holds other files,
                or another process is using it.
        """
        plain = config.model_dump(mode="json")
        manifest = Manifest(
            stage=stage,
            config=plain,
            config_hash=hash_json(plain),
            inputs={name: content_hash(path, name) for name, path in inputs.items()},
            seed=seed,
            versions=installed_versions(),
            git_revision=git_revision(),
        )
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"output directory {directory} cannot be created ({error.strerror}); choose another"
            ) from error
        _hold(directory)
        try:
            found = _claimed(directory, manifest)
        except InputError:
            _release(directory)
            raise
        if found is not None and found.complete:
            _release(directory)
            return cls(directory, found)
        if found is not None:
            manifest = manifest.model_copy(update={"runs": found.runs + 1, "computed": found.computed})
        write_json(directory / MANIFEST, manifest)
        opened = cls(directory, manifest)
        add_listener(opened)
        return opened

    def __getstate__(self) -> dict[str, object]:
        """What another process of the run may know: the lock stays with the process that writes."""
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    @property
    def done(self) -> bool:
        """Whether the directory is complete, so there is nothing to do."""
        return self.manifest.complete

    def add_computed(self, record: Computed) -> None:
        """Write the conditions of a forward pass into the manifest at once, so that a kill does not lose them."""
        if record in self.manifest.computed:
            return
        with self._lock:
            if record in self.manifest.computed or self.done:
                return
            self.manifest = self.manifest.model_copy(update={"computed": (*self.manifest.computed, record)})
            if (self.directory / MANIFEST).exists():  # a removed directory must not be created again
                write_json(self.directory / MANIFEST, self.manifest)

    def finish(
        self,
        counts: Mapping[str, int] | None = None,
        dropped: Mapping[str, int] | None = None,
        numbers: Mapping[str, float] | None = None,
        warnings: Sequence[str] = (),
    ) -> Manifest:
        """Write the complete manifest, the last step of a stage.

        Raises:
            InputError: the directory was removed in the meantime.
        """
        if self.done:
            raise ValueError(f"stage '{self.manifest.stage}' in {self.directory} is already complete")
        if not (self.directory / MANIFEST).exists():  # it was written first, so other files are missing too
            raise InputError(
                f"{self.directory} was removed or replaced while '{self.manifest.stage}' wrote to it, so part of it is"
                " lost; delete what is left of it and run the same command again"
            )
        self.manifest = Manifest.model_validate(
            self.manifest.model_dump()
            | {
                "counts": dict(counts or {}),
                "dropped": dict(dropped or {}),
                "numbers": dict(numbers or {}),
                "warnings": tuple(warnings),
                "seconds": time.monotonic() - self._start,
                "complete": True,
            }
        )
        write_json(self.directory / MANIFEST, self.manifest)
        remove_listener(self)
        _release(self.directory)
        return self.manifest


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a directory, complete or not.

    Raises:
        InputError: there is none, or the file is not a manifest of this version.
    """
    path = directory / MANIFEST
    if not path.exists():
        raise InputError(f"{directory} has no {MANIFEST}; choose the output directory of a stage")
    try:
        return Manifest.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(f"{path} is not a manifest of this version; delete the directory or choose another") from error


def content_hash(source: StageInput, name: str = "input") -> str:
    """The hash of an input: a file's bytes; a stage directory's key and data; any other directory's files.

    The times, versions and paths in a stage directory's manifest do not count.

    Raises:
        InputError: the input is missing, or the output of an unfinished stage.
    """
    if isinstance(source, ConfiguredInput):
        return hash_json([content_hash(source.path, name), dict(source.settings)])
    path = source
    if path.is_file():
        return hash_file(path)
    if not path.is_dir():
        raise InputError(f"{name} {path} does not exist; check the path, or run the command that creates it")
    manifest = _manifest_or_none(path)
    if manifest is None:
        return hash_tree(path)
    if not manifest.complete:
        raise InputError(f"{name} {path} is not finished; run the command that creates it ('{manifest.stage}') again")
    return hash_json([manifest.key, hash_tree(path, leave_out=frozenset({MANIFEST}))])


def installed_versions() -> dict[str, str]:
    """The versions of Sightline and of installed packages that affect results, without importing them."""
    versions = {"sightline": sightline.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_revision() -> str | None:
    """The commit of the package's checkout, with `-dirty` if tracked files differ; None outside a checkout."""
    checkout = Path(sightline.__file__).parents[1]
    if not (checkout / ".git").exists():  # an installed package may lie inside an unrelated checkout
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _manifest_or_none(directory: Path) -> Manifest | None:
    """The manifest of a stage directory; None if there is none or the file is not one of Sightline's."""
    try:
        return read_manifest(directory)
    except InputError:
        return None


def _claimed(directory: Path, manifest: Manifest) -> Manifest | None:
    """The manifest that an earlier process of the same run wrote; None in an empty directory; else InputError."""
    if not (directory / MANIFEST).exists():
        other = next((path.name for path in directory.iterdir() if not path.name.startswith(".")), None)
        if other is not None:
            raise InputError(f"output directory {directory} holds other files ('{other}'); choose another --out")
        return None
    found = read_manifest(directory)
    if found.key == manifest.key:
        return found
    raise InputError(
        f"output directory {directory} holds another run ({_difference(found, manifest)});"
        " choose another --out or delete the directory"
    )


def _difference(found: Manifest, wanted: Manifest) -> str:
    """The first difference between two runs, as `name there: a, here: b`."""
    if found.stage != wanted.stage:
        return f"stage there: '{found.stage}', here: '{wanted.stage}'"
    there, here = _flat({**found.config, "seed": found.seed}), _flat({**wanted.config, "seed": wanted.seed})
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            return f"{key} there: {shorten(there.get(key))}, here: {shorten(here.get(key))}"
    names = sorted(
        name for name in found.inputs.keys() | wanted.inputs.keys() if found.inputs.get(name) != wanted.inputs.get(name)
    )
    return f"input changed: {', '.join(names)}" if names else "another config"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _hold(directory: Path) -> None:
    """Lock the directory against other processes until `_release` or the end of this process."""
    descriptor = os.open(directory, os.O_RDONLY)
    identity = _identity(descriptor)
    if identity in _held:
        os.close(descriptor)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(f"another process is using {directory}; wait for it or choose another --out") from error
    except OSError:  # a file system without locks, where the user must avoid concurrent runs
        os.close(descriptor)
        return
    _held[identity] = descriptor


def _release(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    held = _held.pop(_identity(descriptor), None)
    os.close(descriptor)
    if held is not None:
        os.close(held)


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
