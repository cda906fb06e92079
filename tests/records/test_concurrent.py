"""A file written by several processes at once, and removal of what kills leave behind."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from sightline.records.concurrent import concurrent_atomic_write, remove_leftovers

CONTENT = b"picture" * 1000


def write(path: Path, pause: float = 0.0) -> None:
    with concurrent_atomic_write(path) as temporary:
        temporary.write_bytes(CONTENT[:100])
        time.sleep(pause)
        temporary.write_bytes(CONTENT)


def write_often(path: Path) -> None:
    for _ in range(30):
        write(path)


def temporaries(path: Path) -> list[Path]:
    return sorted(path.parent.glob(".*.tmp"))


def killed_while_writing(path: Path) -> None:
    """A process that writes half a file and is killed."""
    context = multiprocessing.get_context("fork")
    before = len(temporaries(path))
    process = context.Process(target=write, args=(path, 60.0))
    process.start()
    while len(temporaries(path)) == before or not temporaries(path)[-1].stat().st_size:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_a_leftover_of_a_killed_process_is_removed_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "images" / "scene.png"
    path.parent.mkdir()
    killed_while_writing(path)
    assert len(temporaries(path)) == 1 and not path.exists()
    write(path)
    assert path.read_bytes() == CONTENT and temporaries(path) == []


def test_a_leftover_is_removed_where_the_file_is_there(tmp_path: Path) -> None:
    """Numbers between two leftovers may be free: their writers had finished."""
    path = tmp_path / "scene.png"
    path.write_bytes(CONTENT)
    for number in (0, 3):
        (tmp_path / f".scene.png.{number}.tmp").write_bytes(b"half")
    other = tmp_path / ".other.png.0.tmp"
    other.write_bytes(b"half")
    remove_leftovers(path)
    assert temporaries(path) == [other] and path.read_bytes() == CONTENT


def test_what_another_process_writes_now_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    with concurrent_atomic_write(path) as first:
        first.write_bytes(b"first")
        remove_leftovers(path)
        with concurrent_atomic_write(path) as second:
            assert second != first
            second.write_bytes(b"second")
        assert path.read_bytes() == b"second" and first.read_bytes() == b"first"
    assert path.read_bytes() == b"first" and temporaries(path) == []


def test_a_body_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    write(path)
    with pytest.raises(FileNotFoundError, match="elsewhere"), concurrent_atomic_write(path) as temporary:
        temporary.write_bytes((tmp_path / "elsewhere").read_bytes())
    assert path.read_bytes() == CONTENT and temporaries(path) == []


def test_processes_that_write_the_same_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_often, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert path.read_bytes() == CONTENT and temporaries(path) == []


def test_without_locks_files_are_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr("sightline.records.concurrent.fcntl.flock", unsupported)
    path = tmp_path / "scene.png"
    write(path)
    assert path.read_bytes() == CONTENT
