"""Several processes of a launcher build one directory, the one that a single process builds, byte for byte."""

import subprocess
from pathlib import Path

import pytest

from sightline.builders.bdhs import BDHS, BDHSConfig
from sightline.builders.build import BUILT, BuildPlan, build_dataset
from sightline.builders.builder import BuildResult
from sightline.records import append_rows, read_manifest, read_rows
from sightline.records.manifest import _release
from sightline.records.parts import merge_parts, part_file
from tests.launching import accelerate, launched, start

CONFIG = BDHSConfig(rho=0.8, tries=3, threshold=0.35, max_new_tokens=8, batch_size=8, wave=3)
SETTINGS = [
    word
    for key, value in CONFIG.model_dump(include={"rho", "tries", "threshold", "max_new_tokens", "wave"}).items()
    for word in ("--set", f"{key}={value}")
]
#: A builder that takes its time and refuses one sample, so that one process fails and another is at work.
ODD = """
import time
import sightline as sl
from sightline.builders.builder import BuildResult
from sightline.config import Config
from sightline.errors import InputError

class OddConfig(Config):
    pass

@sl.register_builder("odd", config=OddConfig, help="Refuses one.", needs=())
def build(samples, context, config):
    for sample in samples:
        if sample.id.endswith("01"):
            raise InputError(f"{sample.id} is odd; remove it")
        time.sleep(1)
        yield BuildResult(sample_id=sample.id, dropped="dull")
"""


def tree(directory: Path) -> dict[str, bytes]:
    """Every file but the manifest, which holds times."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(model_dir: Path, samples_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "pairs"
    build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, out)
    return out


def test_two_processes_write_what_one_writes(whole: Path, model_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    command = ["sightline", "pairs", "bdhs", "--model", str(model_dir), "--samples", str(samples_dir), *SETTINGS]
    first, other = launched(2, [*command, "--set", "batch_size=8", "--out", str(tmp_path / "out")])
    assert tree(tmp_path / "out") == tree(whole)
    one, two = read_manifest(whole), read_manifest(tmp_path / "out")
    assert (one.key, one.counts, one.dropped, one.computed) == (two.key, two.counts, two.dropped, two.computed)
    same = {name for name in one.numbers if name != "cache_hit_rate"}
    assert {name: one.numbers[name] for name in same} == {name: two.numbers[name] for name in same} and two.complete
    assert "pairs" in first and "pairs" not in other


@pytest.mark.parametrize("processes", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_parts_of_a_killed_run_are_taken_over_by_any_number_of_processes(
    whole: Path, model_dir: Path, samples_dir: Path, tmp_path: Path, processes: int
) -> None:
    """Two of four processes had written a row each, one was torn in the middle of its second."""

    class Interrupted(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise Interrupted

    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, out, stop)
    _release(out)  # a killed process holds no lock
    rows = list(read_rows(out / BUILT, BuildResult))
    assert len(rows) == 3
    (out / BUILT).unlink()
    for rank, row in zip((0, 3), rows[:2], strict=True):
        append_rows(part_file(out / BUILT, rank, 4), [row])
    with part_file(out / BUILT, 3, 4).open("ab") as torn:
        torn.write(rows[2].model_dump_json().encode()[:50])
    if processes == 1:
        build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, out)
    else:
        command = ["sightline", "pairs", "bdhs", "--model", str(model_dir), "--samples", str(samples_dir), *SETTINGS]
        launched(processes, [*command, "--set", "batch_size=8", "--out", str(out)])
    assert tree(out) == tree(whole)
    assert read_manifest(out).runs == 2


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_with_one_sentence(samples_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(ODD)
    command = ["sightline", "--plugin", str(tmp_path / "odd.py"), "pairs", "odd", "--samples", str(samples_dir)]
    processes = start(2, [*command, "--out", str(tmp_path / "out")])
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert "".join(errors).count("error: scene-01 is odd; remove it") == 1, errors
    assert "Traceback" not in "".join(errors)
    kept = [row.sample_id for path in (tmp_path / "out/work").glob("*.jsonl") for row in read_rows(path, BuildResult)]
    assert len(kept) < 5, "the other process stopped early"


@pytest.mark.slow
def test_accelerate_launch_builds_pairs(whole: Path, model_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    """The command of docs/guides/scale.md."""
    command = ["pairs", "bdhs", "--model", str(model_dir), "--samples", str(samples_dir), *SETTINGS]
    command += ["--set", "batch_size=8", "--out", str(tmp_path / "out")]
    done = subprocess.run([*accelerate(2), *command], capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == tree(whole)
    assert done.stdout.count("pairs: ") == 1


def test_merging_keeps_the_bytes_and_each_row_once(tmp_path: Path) -> None:
    path, order = tmp_path / "rows.jsonl", {name: place for place, name in enumerate("abcd")}

    def row(name: str) -> BuildResult:
        return BuildResult(sample_id=name, dropped="dull", tallies={"tokens": 1.5})

    append_rows(path, [row("c")])
    append_rows(part_file(path, 0, 2), [row("b"), row("c")])
    append_rows(part_file(path, 1, 2), [row("z"), row("a")])
    merge_parts(path, BuildResult, lambda result: result.sample_id, order)
    assert [each.sample_id for each in read_rows(path, BuildResult)] == ["a", "b", "c", "z"]
    append_rows(tmp_path / "plain.jsonl", map(row, "abcz"))
    assert path.read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["plain.jsonl", "rows.jsonl"]
    before = path.stat().st_mtime_ns
    merge_parts(path, BuildResult, lambda result: result.sample_id, order)
    assert path.stat().st_mtime_ns == before, "nothing to do"
