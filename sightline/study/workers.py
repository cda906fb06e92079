"""Worker processes, each of which runs one job at a time; a worker that is killed loses only its own job.

Workers end with the process that started them. `runner` schedules jobs, `execute` runs one.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

from sightline.errors import InputError, disk_problem
from sightline.records.manifest import Manifest
from sightline.study.execute import JobContext, execute_job
from sightline.study.plan import Job

LOGS = "logs"
_SPAWN = get_context("spawn")
_PATIENCE = 20.0  # seconds for an idle process to end by itself


@dataclass(frozen=True)
class JobResult:
    """The result of a job: its manifest, or the reason why it failed."""

    piece: Job
    manifest: Manifest | None
    seconds: float
    error: str = ""


class _Worker:
    """One process, started with its first job."""

    def __init__(self, threads: int) -> None:
        self.connection, theirs = _SPAWN.Pipe()
        self.process: BaseProcess = _SPAWN.Process(target=_serve, args=(theirs, threads))
        self.process.start()
        theirs.close()  # so that reading ends when the process does
        self.piece: Job | None = None
        self._began = 0.0

    def begin(self, job: JobContext, log: Path) -> None:
        self.piece, self._began = job.piece, time.monotonic()
        self.connection.send((job, log))

    def result(self) -> JobResult:
        """The result of the job, once it can be read."""
        assert self.piece is not None
        piece, self.piece = self.piece, None
        try:
            done: JobResult = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            remedy = "memory may be too small for so many: run the same command again with fewer --workers"
            return JobResult(piece, None, time.monotonic() - self._began, f"its process {how}; {remedy}")
        return done


class Workers:
    """At most `count` processes; leaving the context kills busy ones, whose jobs can be resumed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._threads = max(1, len(os.sched_getaffinity(0)) // count)
        self._all: list[_Worker] = []

    def __enter__(self) -> "Workers":
        return self

    @property
    def busy(self) -> int:
        """The number of running jobs."""
        return sum(worker.piece is not None for worker in self._all)

    @property
    def free(self) -> int:
        """The number of further jobs that can be started."""
        return self._count - self.busy

    def begin(self, job: JobContext, log: Path) -> None:
        """Give a job to an idle process, or to a new one."""
        idle = next((worker for worker in self._all if worker.piece is None), None)
        if idle is None:
            with _signals_held_back():
                idle = _Worker(self._threads)
                self._all.append(idle)
        idle.begin(job, log)

    def ended(self) -> Iterator[JobResult]:
        """Wait until at least one job has ended; yield the results of all that have."""
        busy = {worker.connection: worker for worker in self._all if worker.piece is not None}
        for connection in wait(list(busy)):
            worker = busy[connection]  # type: ignore[index]  # `wait` gives back what it was given
            done = worker.result()
            if not worker.process.is_alive():
                worker.connection.close()
                self._all.remove(worker)
            yield done

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._all:
            if worker.piece is not None:
                worker.process.kill()
            worker.connection.close()
        for worker in self._all:
            worker.process.join(_PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Defer SIGINT and SIGTERM while a process is started.

    If the parent exits between starting a process and sending it a job, that process ends with a traceback. The process
    inherits the block of SIGINT, so that Ctrl-C during its imports does not end in a traceback either.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {
        number: signal.signal(number, lambda found, _: arrived.append(found))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    resource_tracker.ensure_running()  # now, since its own start, which the first process brings, ends the block
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # what waits now goes to the lines above
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for late in dict.fromkeys(arrived):
            signal.raise_signal(late)


def _serve(connection: Connection, threads: int) -> None:
    """The main loop of a worker: run one job after another until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent handles it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by torch when a job first imports it
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    while True:
        try:
            job, log = connection.recv()
        except (EOFError, ConnectionError):
            return
        connection.send(_attempt(job, log))


def _end_with_parent() -> None:
    """Exit with the parent: a worker whose parent was killed would block the next run's job."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _attempt(job: JobContext, log: Path) -> JobResult:
    began = time.monotonic()
    try:
        with _messages_to(log):
            manifest = execute_job(job)
    except InputError as error:
        return JobResult(job.piece, None, time.monotonic() - began, str(error))
    except Exception as error:  # noqa: BLE001 - one job's error must not stop the others; bugs are shown in full
        reason = disk_problem(error, job.out) or traceback.format_exc()
        return JobResult(job.piece, None, time.monotonic() - began, reason)
    return JobResult(job.piece, manifest, time.monotonic() - began)


@contextmanager
def _messages_to(log: Path) -> Iterator[None]:
    """Redirect a stage's stderr, progress bars included, to a file: several at once would garble a terminal."""
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
