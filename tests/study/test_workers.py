"""Processes that do pieces: one that is killed loses its own piece alone; a ledger that was damaged is made again."""

import fcntl
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.records.hashing import hash_json
from sightline.records.manifest import read_manifest
from sightline.study.config import StudyConfig
from sightline.study.execute import JobContext, Places, execute_job, lab_base
from sightline.study.ledger import LEDGER, Ledger
from sightline.study.plan import Job, StudyPlan, plan_study
from sightline.study.resume import find_finished
from sightline.study.runner import LOCK, job_contexts, run_study
from sightline.study.workers import JobResult, Workers
from tests.study.test_study_plan import STUDY


def scenes(out: Path, count: int) -> JobContext:
    settings = {"split": "preference", "count": count, "scenes": {}}
    piece = Job(hash_json(settings), "samples", f"scenes {count}", settings, 0)
    return JobContext(piece, out / piece.folder, {}, lab_base(), Places(out / "data", None, 8))


def test_a_killed_process_loses_its_own_piece(tmp_path: Path) -> None:
    """Two at work; the one with the long piece is killed. The other's piece is done, and the next one too."""
    ended: list[JobResult] = []
    with Workers(2) as pool:
        pool.begin(scenes(tmp_path, 100_000), tmp_path / "long.log")
        (long,) = pool._all
        pool.begin(scenes(tmp_path, 3), tmp_path / "short.log")
        assert pool.free == 0 and long.process.pid is not None
        os.kill(long.process.pid, signal.SIGKILL)
        while pool.busy:
            ended += pool.ended()
        pool.begin(scenes(tmp_path, 2), tmp_path / "next.log")
        ended += pool.ended()
    found = {done.piece.label: done for done in ended}
    killed = found["scenes 100000"]
    assert killed.manifest is None and "killed by signal 9" in killed.error and "fewer --workers" in killed.error
    assert [found[name].manifest.counts["samples"] for name in ("scenes 3", "scenes 2")] == [3, 2]  # type: ignore[union-attr]
    assert not any(worker.process.is_alive() for worker in pool._all)


INTERRUPTED_AT_ITS_START = """
import multiprocessing.util as util
import os
import signal
import sys
from pathlib import Path

from sightline.study.workers import Workers
from tests.study.test_workers import scenes

start = util.spawnv_passfds


def interrupted(path, arguments, descriptors):
    number = start(path, arguments, descriptors)
    if b"spawn_main" in b" ".join(map(os.fsencode, arguments)):
        os.kill(os.getpid(), SIGNAL)  # the process runs, and has not been sent yet what to run
        os.kill(number, signal.SIGINT)  # as Ctrl-C on a terminal reaches it too
    return number


def end(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    util.spawnv_passfds = interrupted
    signal.signal(signal.SIGTERM, end)
    out = Path(sys.argv[1])
    try:
        with Workers(1) as pool:
            pool.begin(scenes(out, 3), out / "x.log")
    except KeyboardInterrupt:
        print("interrupted", [worker.process.exitcode for worker in pool._all])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_process_starts_ends_in_no_trace(number: signal.Signals, tmp_path: Path) -> None:
    """Between the start of a process and the message that says what to run: it used to end in an EOFError's trace."""
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED_AT_ITS_START.replace("SIGNAL", str(int(number))))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("interrupted [0]\n", "", 0)


def test_a_piece_that_the_disk_refuses_is_a_sentence(tmp_path: Path) -> None:
    """The process inherits a limit on the size of files, which stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Workers(1) as pool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
        try:
            pool.begin(scenes(tmp_path, 40), tmp_path / "x.log")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        (done,) = pool.ended()
    assert done.manifest is None and "Traceback" not in done.error
    assert "the file would be larger than the system allows" in done.error and "run the same command" in done.error


def test_what_fails_is_told_and_the_process_goes_on(tmp_path: Path) -> None:
    bad = scenes(tmp_path, 1)
    bad.piece.settings["split"] = "preferences"
    with Workers(1) as pool:
        pool.begin(bad, tmp_path / "bad.log")
        (failed,) = pool.ended()
        (worker,) = pool._all
        pool.begin(scenes(tmp_path, 2), tmp_path / "good.log")
        (done,) = pool.ended()
        assert pool._all == [worker]
    assert failed.manifest is None and "did you mean 'preference'?" in failed.error and done.manifest is not None


@pytest.fixture
def plan() -> StudyPlan:
    return plan_study(StudyConfig.model_validate(STUDY))


def test_work_done_elsewhere_is_found(tmp_path: Path, plan: StudyPlan) -> None:
    """A piece that was done in no study counts, with its manifest's seconds and counts; a broken one does not."""
    jobs = job_contexts(plan, tmp_path)
    key, job = next((key, job) for key, job in jobs.items() if job.piece.kind == "samples")
    execute_job(job)
    ledger = Ledger(tmp_path, write=True)
    assert list(find_finished(jobs, ledger)) == [key]
    entry, manifest = ledger.entries()[key], read_manifest(job.out)
    assert (entry.state, entry.counts, entry.seconds) == ("done", {"samples": 8}, manifest.seconds)
    assert entry.command.startswith("sightline lab scenes --split preference --count 8")
    find_finished(jobs, ledger)
    assert ledger.entries()[key].seconds == manifest.seconds, "what is known already is not added up again"
    (job.out / "manifest.json").write_text("{}")
    assert find_finished(jobs, ledger) == {}


def test_a_damaged_ledger_is_put_aside_and_made_anew(tmp_path: Path, plan: StudyPlan) -> None:
    jobs, lines = job_contexts(plan, tmp_path), list[str]()
    execute_job(next(job for job in jobs.values() if job.piece.kind == "samples"))
    (tmp_path / LEDGER).write_bytes(b"no data base, " * 100)
    ledger = Ledger.mended(tmp_path, lines.append)
    find_finished(jobs, ledger)
    assert [entry.kind for entry in ledger.entries().values()] == ["samples"]
    assert len(lines) == 1 and "ledger.sqlite.damaged" in lines[0] and (tmp_path / "ledger.sqlite.damaged").exists()


def test_a_damaged_row_is_taken_out_and_made_anew(tmp_path: Path, plan: StudyPlan) -> None:
    jobs, lines = job_contexts(plan, tmp_path), list[str]()
    execute_job(next(job for job in jobs.values() if job.piece.kind == "samples"))
    find_finished(jobs, Ledger(tmp_path, write=True))
    with sqlite3.connect(tmp_path / LEDGER) as file:
        file.execute("UPDATE pieces SET counts = '{\"samples\": 8'")
    with pytest.raises(InputError, match="damaged rows"):
        Ledger(tmp_path).entries()
    ledger = Ledger.mended(tmp_path, lines.append)
    assert ledger.entries() == {} and lines == [
        f"{tmp_path / LEDGER}: 1 damaged rows are deleted; those of finished jobs are rebuilt"
    ]
    find_finished(jobs, ledger)
    assert [entry.counts for entry in ledger.entries().values()] == [{"samples": 8}]


def test_a_directory_has_one_runner_at_a_time(tmp_path: Path, plan: StudyPlan) -> None:
    with (tmp_path / LOCK).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process runs a study in"):
            run_study(plan, "study", tmp_path)
    assert not (tmp_path / LEDGER).exists()
