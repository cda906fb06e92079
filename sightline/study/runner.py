"""Doing a study's pieces, each once and each as soon as what it stands on is done, in one process or in several.

A piece whose directory is complete costs nothing; one that was killed goes on; one that fails takes with it what stands
on it, and the rest goes on. The numbers that come out are `outcome`.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sightline.errors import InputError
from sightline.study.execute import MODEL, JobContext, Places, lab_base
from sightline.study.ledger import Ledger
from sightline.study.plan import WHOLE, Job, StudyPlan, plan_text
from sightline.study.resume import entry_of, folder_of, known_finished
from sightline.study.workers import LOGS, Done, Workers

LOCK = ".lock"


def _silent(_: object) -> None:
    """Nobody listens."""


def jobs_of(plan: StudyPlan, out: Path) -> dict[str, JobContext]:
    """Every piece as a job, by key."""
    evaluation = plan.config.evaluate
    places = Places(data=evaluation.data or out / "data", images=evaluation.images, batch_size=evaluation.batch_size)

    def place(key: str) -> Path:
        return folder_of(plan.pieces[key], out) if key in plan.pieces else Path(key)

    def model_of(piece: Job) -> Path:
        if WHOLE in piece.inputs:
            return place(piece.inputs[WHOLE]) / MODEL
        return place(piece.inputs["model"]) if "model" in piece.inputs else lab_base()

    return {
        key: JobContext(
            piece=piece,
            out=place(key),
            inputs={role: place(given) for role, given in piece.inputs.items() if role != "model"},
            model=model_of(piece),
            places=places,
        )
        for key, piece in plan.pieces.items()
    }


def run_study(
    plan: StudyPlan,
    name: str,
    out: Path,
    *,
    workers: int = 1,
    on_done: Callable[[Done], None] = _silent,
    log: Callable[[str], None] = _silent,
) -> list[Done]:
    """Do every piece of the plan; `on_done` hears of each as it ends. The pieces that failed, with their reasons.

    `log` hears what is worth a line. A damaged ledger is put aside and made anew of what is done.

    Raises:
        InputError: `out` cannot be used, or another process runs a study in it.
    """
    with _alone(out, log):
        ledger = Ledger.mended(out, log)
        runs = [(run.arm, run.seed, run.train, run.eval) for run in plan.runs]
        ledger.begin_study(name, plan.config.model_dump(mode="json"), runs, plan_text(plan))
        jobs = jobs_of(plan, out)
        finished = known_finished(jobs, ledger)
        for key, manifest in finished.items():
            on_done(Done(plan.pieces[key], manifest, 0.0))
        failed: list[Done] = []
        for done in _ended(plan, jobs, out, ledger, set(finished), workers):
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
            on_done(done)
        return failed


def _ended(
    plan: StudyPlan, jobs: Mapping[str, JobContext], out: Path, ledger: Ledger, finished: set[str], workers: int
) -> Iterator[Done]:
    """Pieces as they end. What stands on a failed one is not begun; what is stopped is left to the next run."""
    left = {key: piece for key, piece in plan.pieces.items() if key not in finished}
    running: set[str] = set()
    try:
        with Workers(workers) as pool:
            while left or running:
                ready = [key for key, piece in left.items() if all(p.key in finished for p in plan.before(piece))]
                for key in ready[: pool.free]:
                    running.add(key)  # first: Ctrl-C between the two leaves no piece that seems to run
                    ledger.begin(entry_of(jobs[key]))
                    pool.begin(jobs[key], out / LOGS / f"{Path(left.pop(key).folder).name}.log")
                if not running:
                    return  # what is left stands on pieces that failed
                for done in pool.ended():
                    running.discard(done.piece.key)
                    if done.manifest is not None:
                        finished.add(done.piece.key)
                    yield done
    finally:
        for key in running:
            ledger.end(key, "stopped", seconds=0.0)


@contextmanager
def _alone(out: Path, log: Callable[[str], None]) -> Iterator[None]:
    """One process at a time runs studies in a directory: two would do the same pieces."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"directory {out} cannot be made ({error.strerror}); choose another --out") from error
    descriptor = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process runs a study in {out}; wait for it, stop it, or choose another --out"
            ) from error
        except OSError as error:
            log(f"{out} takes no locks ({error.strerror}); take care that no other process runs a study in it")
        yield
    finally:
        os.close(descriptor)  # which gives the lock back
