"""`sightline demo` from end to end: on a tiny random model in this process, and, slow, the real program.

The real one has the committed base model; it is run twice, and killed. What the stages do with bad input is
`test_bad_input`.
"""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner, Result

import sightline.lab.demo as demo_module
from sightline.cli import app
from sightline.config import load_config
from sightline.evals.directory import benchmark_names
from sightline.lab import BASE
from sightline.lab.demo import BENCHMARKS
from sightline.records import read_manifest
from sightline.study.config import StudyConfig
from sightline.study.plan import plan_study
from tests.models.tiny import save_tiny_llava

STAGES = ("samples", "pairs-0", "train-0", "eval-base", "eval-aligned-0")
FILES = ("report.html", "report.md", "results.json")


def call(*words: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its time and bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = save_tiny_llava(tmp_path_factory.mktemp("model"))
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 512  # the lab's answers are long for so small a vocabulary
    (directory / "config.json").write_text(json.dumps(config))
    # Random answers are endless; the bytes that no English text has end them too.
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ends = [token for token in range(len(tokenizer)) if tokenizer.decode([token]) == "\ufffd"]
    generation = json.loads((directory / "generation_config.json").read_text())
    generation["eos_token_id"] = [tokenizer.eos_token_id, *ends]
    (directory / "generation_config.json").write_text(json.dumps(generation))
    return directory


# --- the demo ---------------------------------------------------------------------------------------------------------


def assert_whole(out: Path, scenes: int) -> None:
    """Every stage is complete, and the report has every benchmark of both models, with its n."""
    for stage in STAGES:
        assert read_manifest(out / stage).complete
    for stage in ("eval-base", "eval-aligned-0"):
        assert set(benchmark_names(out / stage)) == set(BENCHMARKS)
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert next(iter(results["benchmarks"])) == "lab-chair" and set(results["benchmarks"]) == set(BENCHMARKS)
    described = results["benchmarks"]["lab-chair"]["metrics"]["chair_s"]
    assert described["base"]["n"] == described["aligned"]["n"] == described["images"] == scenes
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")


def test_a_demo_runs_through_and_a_second_one_skips_everything(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "BASE", model)
    out = tmp_path / "demo"
    words = ("demo", "--pairs", 8, "--scenes", 10, "--out", out)
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert f"report: {out / 'report.html'}" in done.stdout.replace("\n", " ").replace("  ", " ")
    assert "chair_s" in done.stdout
    assert_whole(out, scenes=10)
    before = snapshot(out)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a finished stage opened its model again")

    monkeypatch.setattr("sightline.models.loading.AutoModelForImageTextToText.from_pretrained", forbidden)
    again = call(*words)
    assert again.exit_code == 0, again.output
    after = snapshot(out)
    assert {name: data for name, (_, data) in after.items()} == {name: data for name, (_, data) in before.items()}
    assert {name for name in before if before[name] != after[name]} <= set(FILES)  # written again, with the same bytes

    other = call("demo", "--pairs", 9, "--scenes", 10, "--out", out)
    assert other.exit_code == 2 and other.stderr.count("\n") == 1
    assert other.stderr.startswith("error: ") and "holds another run (count there: 8, here: 9)" in other.stderr
    assert snapshot(out) == after


def program(*words: object) -> list[str]:
    return [sys.executable, "-m", "sightline", *map(str, words)]


def run(*words: object) -> float:
    """Run the real program, which must succeed; the seconds that it took."""
    start = time.monotonic()
    done = subprocess.run(program(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - start


needs_base = pytest.mark.skipif(not (BASE / "model.safetensors").exists(), reason="there are no base weights yet")


@pytest.mark.slow
@needs_base
def test_the_real_demo_twice_and_killed(tmp_path: Path) -> None:
    """The second run only skips; a third that is killed when its pairs appear, and started again, ends the same."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = ("--pairs", 8, "--scenes", 10, "--out")
    first = run("demo", *options, whole)
    assert_whole(whole, scenes=10)
    results = (whole / "results.json").read_bytes()
    assert run("demo", *options, whole) < first / 2
    assert (whole / "results.json").read_bytes() == results

    process = subprocess.Popen(program("demo", *options, killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not (killed / "pairs-0").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not (killed / "results.json").exists()
    run("demo", *options, killed)
    assert (killed / "results.json").read_bytes() == results
    assert (killed / "pairs-0/pairs.jsonl").read_bytes() == (whole / "pairs-0/pairs.jsonl").read_bytes()


# --- make demo --------------------------------------------------------------------------------------------------------


def test_make_demo_runs_the_quick_study() -> None:
    """Its command is the one that the study opens with; all arms learn from equal numbers of pairs in equal steps."""
    root = Path(__file__).parents[1]
    recipe = re.search(r"^demo:.*\n\t\$\(BIN\)/(.+)$", (root / "Makefile").read_text(), flags=re.MULTILINE)
    file = root / "studies/quick.yaml"
    assert recipe is not None and file.read_text().startswith(f"# {recipe[1]}\n")
    plan = plan_study(load_config(StudyConfig, file))
    arms = {"bdhs-noisy", "sft-noisy", "bdhs-curated", "sft-curated"}
    assert {run.arm for run in plan.runs} == arms and {run.seed for run in plan.runs} == {0, 1, 2}
    configs = [plan.jobs[run.train].settings["config"] for run in plan.runs]
    assert {config["max_steps"] * config["batch_size"] for config in configs} == {320}
    assert {"lab-chair", "lab-chair-counter"} <= set(plan.config.evaluate.benchmarks)
