"""Running a study's jobs, each once and as soon as its inputs are done, in one or several processes.

Complete jobs are skipped and interrupted ones resume. If a job fails, jobs that depend on it are skipped; the rest
continue. `results` reads the numbers.
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
from sightline.study.resume import find_finished, job_folder, ledger_entry
from sightline.study.workers import LOGS, JobResult, Workers

LOCK = ".lock"


def _silent(_: object) -> None:
    """Discard the argument."""


def job_contexts(plan: StudyPlan, out: Path) -> dict[str, JobContext]:
    """The context of every job, by key."""
    evaluation = plan.config.evaluate
    places = Places(data=evaluation.data or out / "data", images=evaluation.images, batch_size=evaluation.batch_size)

    def place(key: str) -> Path:
        return job_folder(plan.jobs[key], out) if key in plan.jobs else Path(key)

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
        for key, piece in plan.jobs.items()
    }


def run_study(
    plan: StudyPlan,
    name: str,
    out: Path,
    *,
    workers: int = 1,
    on_done: Callable[[JobResult], None] = _silent,
    log: Callable[[str], None] = _silent,
) -> list[JobResult]:
    """Run every job of the plan; return the failed ones with their reasons.

    `on_done` is called as each job ends, `log` with each line to print. A damaged ledger is moved aside and rebuilt.

    Raises:
        InputError: `out` cannot be used, or another process runs a study in it.
    """
    with _alone(out, log):
        ledger = Ledger.mended(out, log)
        runs = [(run.arm, run.seed, run.train, run.eval) for run in plan.runs]
        ledger.begin_study(name, plan.config.model_dump(mode="json"), runs, plan_text(plan))
        jobs = job_contexts(plan, out)
        finished = find_finished(jobs, ledger)
        for key, manifest in finished.items():
            on_done(JobResult(plan.jobs[key], manifest, 0.0))
        failed: list[JobResult] = []
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
) -> Iterator[JobResult]:
    """Results as jobs end. Dependents of failed jobs are not started; stopped jobs are left to the next run."""
    left = {key: piece for key, piece in plan.jobs.items() if key not in finished}
    running: set[str] = set()
    try:
        with Workers(workers) as pool:
            while left or running:
                ready = [key for key, piece in left.items() if all(p.key in finished for p in plan.before(piece))]
                for key in ready[: pool.free]:
                    running.add(key)  # first: Ctrl-C between the two leaves no job marked as running
                    ledger.begin(ledger_entry(jobs[key]))
                    pool.begin(jobs[key], out / LOGS / f"{Path(left.pop(key).folder).name}.log")
                if not running:
                    return  # the rest depends on failed jobs
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
    """Lock the directory, so that only one process runs studies in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"directory {out} cannot be created ({error.strerror}); choose another --out") from error
    descriptor = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process runs a study in {out}; wait for it, stop it, or choose another --out"
            ) from error
        except OSError as error:
            log(f"{out} does not support locks ({error.strerror}); make sure that no other process runs a study in it")
        yield
    finally:
        os.close(descriptor)  # releases the lock
