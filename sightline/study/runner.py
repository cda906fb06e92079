"""Doing a study's pieces, each once and each as soon as what it stands on is done, in one process or in several.

A piece whose directory is complete costs nothing; one that was killed goes on; one that fails takes with it what stands
on it, and the rest goes on. The numbers that come out are `outcome`.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from sightline.errors import InputError
from sightline.records.manifest import Manifest
from sightline.study.command import command_of
from sightline.study.ledger import Entry, Ledger
from sightline.study.plan import Piece, StudyPlan, plan_text
from sightline.study.work import Job, Places, do, lab_base

LOGS = "logs"


@dataclass(frozen=True)
class Done:
    """How a piece ended: with a manifest, or with the sentence why not."""

    piece: Piece
    manifest: Manifest | None
    seconds: float
    error: str = ""


def jobs_of(plan: StudyPlan, out: Path) -> dict[str, Job]:
    """Every piece as a job, by key."""
    told = plan.config.evaluate
    files = Places(data=told.data or out / "data", images=told.images, batch_size=told.batch_size)

    def place(key: str) -> Path:
        return out / plan.pieces[key].folder if key in plan.pieces else Path(key)

    return {
        key: Job(
            piece=piece,
            out=out / piece.folder,
            inputs={role: place(given) for role, given in piece.inputs.items() if role != "model"},
            model=place(piece.inputs["model"]) if "model" in piece.inputs else lab_base(),
            places=files,
        )
        for key, piece in plan.pieces.items()
    }


def run_study(
    plan: StudyPlan, name: str, out: Path, *, workers: int = 1, told: Callable[[Done], None] = lambda _: None
) -> list[Done]:
    """Do every piece of the plan; `told` hears of each as it ends. The pieces that failed, with their reasons.

    Raises:
        InputError: `out` cannot be used.
    """
    ledger = Ledger(out, write=True)
    runs = [(run.arm, run.seed, run.train, run.eval) for run in plan.runs]
    ledger.begin_study(name, plan.config.model_dump(mode="json"), runs, plan_text(plan))
    failed: list[Done] = []
    for done in _ended(plan, out, ledger, workers):
        found = done.manifest
        ledger.end(
            done.piece.key,
            "failed" if found is None else "done",
            seconds=done.seconds,
            note=done.error,
            counts={} if found is None else dict(found.counts),
            numbers={} if found is None else found.numbers,
        )
        if found is None:
            failed.append(done)
        told(done)
    return failed


def _ended(plan: StudyPlan, out: Path, ledger: Ledger, workers: int) -> Iterator[Done]:
    """Pieces as they end. What stands on a failed one is not begun."""
    jobs = jobs_of(plan, out)
    left = dict(plan.pieces)
    finished: set[str] = set()
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_set_up, initargs=(workers,)
    ) as pool:
        running: dict[Future[Done], str] = {}
        while left or running:
            ready = [key for key, piece in left.items() if all(p.key in finished for p in plan.before(piece))]
            for key in ready[: max(0, workers - len(running))]:
                piece = left.pop(key)
                job = jobs[key]
                command = command_of(job)
                ledger.begin(Entry(key, piece.kind, piece.label, piece.folder, command, piece.seed, "running", None))
                running[pool.submit(_attempt, job, out / LOGS / f"{Path(piece.folder).name}.log")] = key
            if not running:
                return  # what is left stands on pieces that failed
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                key = running.pop(future)
                done = _result(future, plan.pieces[key])
                if done.manifest is not None:
                    finished.add(key)
                yield done


def _attempt(job: Job, log: Path) -> Done:
    began = time.monotonic()
    try:
        with _messages_to(log):
            manifest = do(job)
    except InputError as error:
        return Done(job.piece, None, time.monotonic() - began, str(error))
    except Exception:  # noqa: BLE001 - one piece's fault must not lose the others; it is told in full
        return Done(job.piece, None, time.monotonic() - began, traceback.format_exc())
    return Done(job.piece, manifest, time.monotonic() - began)


def _result(future: Future[Done], piece: Piece) -> Done:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise InputError(
            f"a process of the study was killed while it did {piece.label} ({error}); there may be too little memory"
            " for so many workers: run the same command again, with fewer --workers"
        ) from error


@contextmanager
def _messages_to(log: Path) -> Iterator[None]:
    """What a stage tells on stderr, its bars among it, goes to a file: several at once on one terminal are no help."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    terminal = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def _set_up(workers: int) -> None:
    """Share the cores among the workers."""
    import_module("torch").set_num_threads(max(1, len(os.sched_getaffinity(0)) // workers))
