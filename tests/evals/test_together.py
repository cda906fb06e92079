"""Several processes of a launcher evaluate and judge: one directory, and the numbers of a single process."""

import subprocess
import sys
from pathlib import Path

import pytest

from sightline.evals.run import EvalConfig, evaluate
from sightline.lab import BASE
from sightline.records import append_rows, read_manifest, read_rows
from sightline.records.parts import part_file
from sightline.records.rows import Answer
from tests.launching import accelerate, launched

CONFIG = EvalConfig(benchmarks=("lab-vqa", "lab-pope-random"), limit=4, resamples=200, max_new_tokens=6)
SETTINGS = [
    word for key in ("limit", "resamples", "max_new_tokens") for word in ("--set", f"{key}={getattr(CONFIG, key)}")
]
FILES = ("samples.jsonl", "answers.jsonl", "scores.jsonl", "estimates.json", "metrics.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluate(BASE, tmp_path_factory.mktemp("whole") / "eval", CONFIG)


def command(out: Path) -> list[str]:
    return ["eval", "--model", str(BASE), "--bench", ",".join(CONFIG.benchmarks), *SETTINGS, "--out", str(out)]


def assert_same(found: Path, own: Path) -> None:
    for name in CONFIG.benchmarks:
        for file in FILES:
            assert (found / name / file).read_bytes() == (own / name / file).read_bytes(), (name, file)
        assert {path.name for path in (found / name).iterdir()} == {path.name for path in (own / name).iterdir()}


@pytest.mark.slow
def test_two_processes_write_what_one_writes(whole: Path, tmp_path: Path) -> None:
    launched(2, ["sightline", *command(tmp_path / "out")])
    assert_same(tmp_path / "out", whole)
    one, two = read_manifest(whole), read_manifest(tmp_path / "out")
    assert (one.key, one.counts, one.complete) == (two.key, two.counts, two.complete)


def test_one_process_takes_over_the_parts_of_three(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while each of three had written some answers, one of them torn."""
    from sightline.evals import run

    def dying(*_: object) -> list[Answer]:
        raise KeyboardInterrupt

    out, name = tmp_path / "out", CONFIG.benchmarks[0]
    with monkeypatch.context() as patch:
        patch.setattr(run, "_answer", dying)
        with pytest.raises(KeyboardInterrupt):
            evaluate(BASE, out, CONFIG)
    answers = list(read_rows(whole / name / "answers.jsonl", Answer))
    for rank, share in enumerate((answers[:2], answers[5:6], answers[3:5])):
        append_rows(part_file(out / name / "answers.jsonl", rank, 3), share)
    with part_file(out / name / "answers.jsonl", 1, 3).open("ab") as torn:
        torn.write(answers[6].model_dump_json().encode()[:20])
    requests: list[str] = []
    answer = run._answer

    def counting(benchmark, batch, model):  # type: ignore[no-untyped-def]
        requests.extend(sample.id for sample in batch)
        return answer(benchmark, batch, model)

    monkeypatch.setattr(run, "_answer", counting)
    evaluate(BASE, out, CONFIG)
    assert_same(out, whole)
    known = {row.sample_id for row in (*answers[:2], *answers[3:6])}
    assert not known & set(requests) and len(requests) == len(set(requests))


@pytest.mark.slow
def test_accelerate_launch_evaluates(whole: Path, tmp_path: Path) -> None:
    """The command of docs/guides/scale.md; the table is printed once."""
    done = subprocess.run(
        [*accelerate(2), *command(tmp_path / "out")], capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "out", whole)
    assert done.stdout.count("evaluation: ") == 1


@pytest.mark.slow
def test_two_processes_judge_as_one(tmp_path: Path) -> None:
    """`sightline judge` on pairs of the lab, with the model as the judge of its own answers."""
    from sightline.builders.bdhs import BDHS, BDHSConfig
    from sightline.builders.build import BuildPlan, build_dataset
    from sightline.lab.samples import ScenesConfig, write_scenes

    samples = write_scenes(ScenesConfig(described=1.0, captioned=0.0), "validation", 5, tmp_path / "samples")
    config = BDHSConfig(rho=0.8, tries=1, threshold=0.9, max_new_tokens=8)
    build_dataset(BuildPlan(BDHS, config), BASE, samples, tmp_path / "pairs")
    words = ["judge", "--pairs", str(tmp_path / "pairs"), "--model", str(BASE), "--set", "judge.name=self"]
    shown = []
    for launch in ([sys.executable, "-m", "sightline"], accelerate(2)):
        done = subprocess.run([*launch, *words], capture_output=True, text=True, check=False, timeout=400)
        assert done.returncode == 0, done.stderr
        shown.append(done.stdout)
    assert shown[0] == shown[1] and "the judge prefers the chosen answer in" in shown[0]
