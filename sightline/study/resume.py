"""Finished jobs in a study's directory, whether an earlier run, a command by hand or a launch script ran them.

Only manifests are read. Jobs that the ledger lacks are added to it; `runner` runs the rest.
"""

from collections.abc import Mapping
from pathlib import Path

from sightline.errors import InputError
from sightline.records.manifest import MANIFEST, Manifest, content_hash, read_manifest
from sightline.study.execute import JobContext, lab_base, shell_command
from sightline.study.ledger import Ledger, LedgerEntry
from sightline.study.plan import Job


def finished_manifest(directory: Path) -> Manifest | None:
    """The manifest of a complete directory; None if it is incomplete or its manifest is damaged."""
    if not (directory / MANIFEST).exists():
        return None
    try:
        manifest = read_manifest(directory)
    except InputError:
        return None  # the stage reports the damage when the job runs
    return manifest if manifest.complete else None


def job_folder(piece: Job, out: Path) -> Path:
    """The directory of a job below a study's `out`: its own, or that of the same job under another label."""
    own = out / piece.folder
    if finished_manifest(own) is not None:
        return own
    others = sorted(own.parent.glob(f"*{piece.mark}"))
    return next((other for other in others if finished_manifest(other) is not None), own)


def find_finished(jobs: Mapping[str, JobContext], ledger: Ledger) -> dict[str, Manifest]:
    """The manifests of all finished jobs, by key; jobs that the ledger lacks are added to it.

    A job on the lab's model counts only if that model is unchanged; the key does not cover it, since the model ships
    with Sightline.
    """
    entries = ledger.entries()
    finished: dict[str, Manifest] = {}
    for key, job in jobs.items():
        manifest = finished_manifest(job.out)
        if manifest is None or not _of_this_lab(job, manifest):
            continue
        finished[key] = manifest
        if key not in entries or entries[key].state != "done":
            ledger.begin(ledger_entry(job))
            ledger.end(key, "done", seconds=manifest.seconds, counts=dict(manifest.counts), numbers=manifest.numbers)
    return finished


def ledger_entry(job: JobContext) -> LedgerEntry:
    """The ledger's entry of a job that is being started."""
    piece: Job = job.piece
    folder = f"{piece.kind}/{job.out.name}"
    return LedgerEntry(piece.key, piece.kind, piece.label, folder, shell_command(job), piece.seed, "running", None)


def _of_this_lab(job: JobContext, manifest: Manifest) -> bool:
    base = lab_base()
    return job.model != base or "model" not in manifest.inputs or manifest.inputs["model"] == content_hash(base)
