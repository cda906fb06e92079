"""What is done already in a study's directory, whoever did it: an earlier run, a command by hand, a script elsewhere.

Only manifests are read. The ledger is told of what it does not know; what is not done is done by `runner`.
"""

from collections.abc import Mapping
from pathlib import Path

from sightline.errors import InputError
from sightline.records.manifest import MANIFEST, Manifest, content_hash, read_manifest
from sightline.study.execute import JobContext, command_of, lab_base
from sightline.study.ledger import Ledger, LedgerEntry
from sightline.study.plan import Job


def finished_manifest(directory: Path) -> Manifest | None:
    """The manifest of a directory that is complete; None where it is not, or where the file is broken."""
    if not (directory / MANIFEST).exists():
        return None
    try:
        manifest = read_manifest(directory)
    except InputError:
        return None  # the piece's own stage says what is wrong with it
    return manifest if manifest.complete else None


def folder_of(piece: Job, out: Path) -> Path:
    """The directory of a piece below a study's `out`: its own, or where a study that calls it otherwise has done it."""
    own = out / piece.folder
    if finished_manifest(own) is not None:
        return own
    others = sorted(own.parent.glob(f"*{piece.mark}"))
    return next((other for other in others if finished_manifest(other) is not None), own)


def known_finished(jobs: Mapping[str, JobContext], ledger: Ledger) -> dict[str, Manifest]:
    """The manifests of all pieces that are done, by key, each of them now in the ledger.

    A piece of the lab's model counts only while that model is the one it was made with; the key does not say so, since
    the model comes with Sightline.
    """
    entries = ledger.entries()
    finished: dict[str, Manifest] = {}
    for key, job in jobs.items():
        manifest = finished_manifest(job.out)
        if manifest is None or not _of_this_lab(job, manifest):
            continue
        finished[key] = manifest
        if key not in entries or entries[key].state != "done":
            ledger.begin(entry_of(job))
            ledger.end(key, "done", seconds=manifest.seconds, counts=dict(manifest.counts), numbers=manifest.numbers)
    return finished


def entry_of(job: JobContext) -> LedgerEntry:
    """A piece as the ledger has it when it is begun."""
    piece: Job = job.piece
    folder = f"{piece.kind}/{job.out.name}"
    return LedgerEntry(piece.key, piece.kind, piece.label, folder, command_of(job), piece.seed, "running", None)


def _of_this_lab(job: JobContext, manifest: Manifest) -> bool:
    base = lab_base()
    return job.model != base or "model" not in manifest.inputs or manifest.inputs["model"] == content_hash(base)
