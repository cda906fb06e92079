"""Scripts of a study: their commands are those of its pieces, the shell takes them, and what they do is found done."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from sightline.cli import app
from sightline.errors import InputError
from sightline.study.config import StudyConfig
from sightline.study.launch import LaunchKind, plan_stages, write_scripts
from sightline.study.ledger import Ledger
from sightline.study.plan import StudyPlan, plan_study
from tests.models.tiny import save_tiny_llava
from tests.study.test_study_plan import STUDY

ROOT = Path(__file__).parents[2]
#: Does at once what Slurm's command of that name would put into a queue, and keeps what it was submitted.
SBATCH = """#!/usr/bin/env bash
echo "$@" >> "$SUBMITTED"
script="${@: -1}"
last="$(sed -n 's/^#SBATCH --array=0-//p' "$script")"
for task in $(seq 0 "$last"); do SLURM_ARRAY_TASK_ID="$task" bash "$script" >> "$SUBMITTED.log" 2>&1; done
echo "$(wc -l < "$SUBMITTED");cluster"
"""


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def plan() -> StudyPlan:
    return plan_study(StudyConfig.model_validate(STUDY))


def run(script: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **more}
    return subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", ["accelerate", "slurm", "skypilot"])
def test_the_shell_takes_every_script(
    kind: LaunchKind, plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "a study's"
    first, *_ = write_scripts(plan, "tiny", out, kind)
    first = first.resolve()
    assert first.exists() and len(list((out / "launch/pieces").glob("*.sh"))) == len(plan.jobs)
    for script in (path for path in (out / "launch").rglob("*") if path.suffix in (".sh", ".sbatch")):
        checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
    for file in (out / "launch").glob("*.yaml"):
        assert isinstance(yaml.safe_load(file.read_text()), dict)


def test_a_stage_stands_on_earlier_ones(plan: StudyPlan) -> None:
    """Scenes need no GPU and come first; then what needs nothing but the model; pairs, training, evaluation."""
    stages = plan_stages(plan)
    assert [sorted({piece.kind for piece in stage}) for stage in stages] == [
        ["samples"],
        ["eval"],
        ["pairs"],
        ["train"],
        ["eval"],
    ]
    before: set[str] = set()
    for stage in stages:
        assert all(piece.key in before for each in stage for piece in plan.before(each))
        before |= {piece.key for piece in stage}
    assert before == set(plan.jobs)


def test_the_environment_is_the_users(plan: StudyPlan, tmp_path: Path) -> None:
    write_scripts(plan, "tiny", tmp_path, "slurm")
    (tmp_path / "launch/env.sh").write_text("# mine\n")
    (tmp_path / "launch/pieces/9999-old.sh").write_text("exit 1\n")
    write_scripts(plan, "tiny", tmp_path, "accelerate")
    assert (tmp_path / "launch/env.sh").read_text() == "# mine\n"
    assert "accelerate.commands.launch" in (tmp_path / "launch/commands.sh").read_text()
    with pytest.raises(InputError, match="choose another --out"):
        write_scripts(plan, "tiny", tmp_path, "skypilot")
    assert not (tmp_path / "launch/pieces/9999-old.sh").exists() and not list((tmp_path / "launch").glob("stage-*"))


def test_a_script_does_its_piece(plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script of the scenes, run; a relative directory stays relative to where the study was planned."""
    monkeypatch.chdir(tmp_path)
    write_scripts(plan, "tiny", Path("runs/tiny"), "skypilot")
    (script,) = (tmp_path / "runs/tiny/launch/pieces").glob("*scenes*")
    assert str(tmp_path) not in script.read_text()
    monkeypatch.chdir("/")
    done = run(script)
    assert done.returncode == 0, done.stderr
    piece = next(piece for piece in plan.jobs.values() if piece.kind == "samples")
    assert json.loads((tmp_path / "runs/tiny" / piece.folder / "manifest.json").read_text())["complete"]


def test_a_job_of_several_cards_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm: its stage asks for them, and its script starts as many processes; other stages stay as they are."""
    monkeypatch.chdir(tmp_path)
    plan = plan_study(StudyConfig.model_validate({**STUDY, "launch": {"train": 4}}))
    write_scripts(plan, "tiny", Path("out"), "slurm")
    launch = tmp_path / "out/launch"
    kinds = [{piece.kind for piece in stage} for stage in plan_stages(plan)]
    for number, kind in enumerate(kinds, 1):
        text = (launch / f"stage-{number}.sbatch").read_text()
        cards = 4 if kind == {"train"} else 1 if kind == {"eval"} else 0  # these builders ask no model
        assert ("#SBATCH --gres=gpu:" in text) == bool(cards)
        assert not cards or (f"gres=gpu:{cards}\n" in text and f"--cpus-per-task={8 * cards}\n" in text)
    scripts = [path.read_text() for path in (launch / "pieces").glob("*.sh")]
    assert sum("sightline_on_cards 4 train " in text for text in scripts) == sum(
        piece.kind == "train" for piece in plan.jobs.values()
    )
    assert (launch / "ddp.yaml").exists()
    (tmp_path / "python").write_text(
        '#!/usr/bin/env bash\nif [ "$1" = -c ]; then echo LAB; else echo "$*" >> ran; fi\n'
    )
    (tmp_path / "python").chmod(0o755)
    script = next(path for path in (launch / "pieces").glob("*.sh") if "on_cards" in path.read_text())
    done = run(script, PYTHON=str(tmp_path / "python"))
    assert done.returncode == 0, done.stderr
    (ran,) = (tmp_path / "ran").read_text().splitlines()
    assert ran.startswith("-m accelerate.commands.launch --config_file")
    assert " --num_processes 4 --main_process_port " in ran and " -m sightline train --model " in ran


#: In place of Python: notes when it starts and ends, and which cards it may use.
NOTING = """#!/usr/bin/env bash
if [ "$1" = -c ]; then echo LAB; exit; fi
echo "start $CUDA_VISIBLE_DEVICES $*" >> noted
sleep 0.5
echo "end" >> noted
case "$*" in *" --seed 1 "*) exit 1;; esac
"""


def test_skypilot_runs_independent_jobs_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine of two GPUs: two jobs at once, each on its own; stages in order; a failed job fails the task."""
    monkeypatch.chdir(tmp_path)
    plan = plan_study(StudyConfig.model_validate(STUDY))
    write_scripts(plan, "tiny", Path("out"), "skypilot")
    (tmp_path / "python").write_text(NOTING)
    (tmp_path / "python").chmod(0o755)
    done = run(tmp_path / "out/launch/run.sh", PYTHON=str(tmp_path / "python"), GPUS="2", CUDA_VISIBLE_DEVICES="")
    lines = (tmp_path / "noted").read_text().splitlines()
    started = [line for line in lines if line.startswith("start")]
    assert len(started) == len(plan.jobs)
    assert ("failed: " in done.stderr) == (done.returncode == 1) == any(" --seed 1 " in line for line in started)
    trained = [line.split()[1] for line in started if " train " in line]
    assert set(trained) == {"0", "1"} and len(trained) > 1
    running, most = 0, 0
    for line in lines:
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    assert most == 2
    task = yaml.safe_load((tmp_path / "out/launch/study.sky.yaml").read_text())
    trainings = max(len(stage) for stage in plan_stages(plan) if stage[0].kind != "samples")
    assert task["resources"]["accelerators"] == f"A100-80GB:{next(n for n in (1, 2, 4, 8) if n >= min(trainings, 8))}"
    plan = plan_study(StudyConfig.model_validate({**STUDY, "launch": {"train": 8}}))
    write_scripts(plan, "tiny", Path("out"), "skypilot")
    assert "A100-80GB:8" in (tmp_path / "out/launch/study.sky.yaml").read_text()


@pytest.mark.slow
def test_the_scripts_do_the_study_and_a_run_finds_it_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All stages, by a stand-in for sbatch that works at once; `study` then has nothing to do but the report."""
    monkeypatch.chdir(tmp_path)
    model = save_tiny_llava(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 1024
    (model / "config.json").write_text(json.dumps(config))
    arms = {"dpo": {"pairs": "corrupted"}}
    evaluate = {"benchmarks": ["lab-vqa"], "limit": 1, "batch_size": 3, "autocast": True}
    study: dict[str, Any] = {**STUDY, "model": "model", "arms": arms, "seeds": [0], "evaluate": evaluate}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(study))
    written = call("study", "tiny.yaml", "--out", "out", "--launch", "slurm")
    assert written.exit_code == 0 and "nothing was started" in written.output, written.output
    assert not (tmp_path / "out/ledger.sqlite").exists()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sbatch").write_text(SBATCH)
    (tmp_path / "bin/sbatch").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    done = run(tmp_path / "out/launch/submit.sh", PATH=path, SUBMITTED=str(tmp_path / "submitted"))
    assert done.returncode == 0, done.stderr
    submitted = [shlex.split(line) for line in (tmp_path / "submitted").read_text().splitlines()]
    assert submitted[0][0] == "--parsable" and "--dependency=afterany:1" in submitted[1]
    manifests = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("manifest.json")}
    assert len(manifests) == 5, (tmp_path / "submitted.log").read_text()
    found = call("study", "tiny.yaml", "--out", "out")
    assert found.exit_code == 0, found.output
    assert "train: 1, of which 0 to do" in found.output
    assert all(file.stat().st_mtime_ns == time for file, time in manifests.items())
    entries = Ledger(tmp_path / "out").entries().values()
    assert {entry.state for entry in entries} == {"done"} and all(entry.seconds for entry in entries)
    assert {entry.counts.get("steps") for entry in entries if entry.kind == "train"} == {2}
