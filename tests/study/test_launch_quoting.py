"""Names and paths in scripts are data: scripts with hostile ones, run by a real shell, do their commands alone."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sightline.errors import InputError
from sightline.study.config import StudyConfig
from sightline.study.execute import command_words, lab_base
from sightline.study.launch import LaunchKind, write_scripts
from sightline.study.plan import StudyPlan, plan_study
from sightline.study.runner import job_contexts
from tests.study.test_study_plan import STUDY

#: Each would make a file `MARK-...` where it were run; and what breaks words, comments, lines of #SBATCH and YAML.
HOSTILE = (
    "a b  c",
    "$(touch MARK-dollar)",
    "`touch MARK-tick`",
    "'; touch MARK-single; '",
    '"; touch MARK-double; "',
    "x\ntouch MARK-newline\n#",
    "x\n#SBATCH --wrap='touch MARK-wrap'\nmalicious: 1 # .y",
    "-n & touch MARK-amp",
    "* ? [a] {b,c} ~ ! \\ %a %% # : - é 熊",
)
#: Stands for Python: it keeps the words it is given, each ended by a null byte.
PYTHON = """#!/usr/bin/env bash
if [ "$1" = -c ]; then printf '%s\\n' "$FAKE_LAB"; exit 0; fi
printf '%s\\0' "$@" >> "$REQUESTS"
printf '\\0' >> "$REQUESTS"
"""
#: Stands for sbatch: it keeps its words, and does each task of the array as Slurm does.
SBATCH = """#!/usr/bin/env bash
printf '%s\\0' "$@" >> "$SUBMITTED"
printf '\\0' >> "$SUBMITTED"
script="${@: -1}"
last="$(sed -n 's/^#SBATCH --array=0-//p' "$script")"
for task in $(seq 0 "$last"); do SLURM_ARRAY_TASK_ID="$task" bash -- "$script" || echo "failed $script" >&2; done
echo 7
"""
#: Stands for SkyPilot: it runs the task's `run` in the working directory, as the remote machine's shell would.
SKY = """#!{python}
import subprocess, sys, yaml
task = yaml.safe_load(open(sys.argv[2], encoding="utf-8"))
sys.exit(subprocess.run(["bash", "-c", task["run"]]).returncode)
"""


def calls(file: Path) -> list[list[str]]:
    """The words of every call, in order."""
    if not file.exists():
        return []
    return [call.split("\0") for call in file.read_text(encoding="utf-8").removesuffix("\0\0").split("\0\0")]


def hostile_plan(text: str) -> StudyPlan:
    """A plan with the text as every label and in settings and paths; past the config, which refuses some of them."""
    plan = plan_study(StudyConfig.model_validate({**STUDY, "seeds": [0]}))
    jobs = {key: replace(piece, label=text, settings=_with(piece.settings, text)) for key, piece in plan.jobs.items()}
    evaluate = plan.config.evaluate.model_copy(update={"images": Path(f"images {text}")})
    return replace(plan, jobs=jobs, config=plan.config.model_copy(update={"evaluate": evaluate}))


def _with(settings: dict[str, Any], text: str) -> dict[str, Any]:
    return {**settings, "config": {**settings["config"], "note": text}} if "config" in settings else settings


def stand_in(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize("kind", ["accelerate", "slurm", "skypilot"])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_data(kind: LaunchKind, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels, settings, OUT, the study's name and the folder where it is planned all hold the text."""
    folder = text.replace("/", "")
    home = tmp_path / f"home {folder}."
    home.mkdir()
    monkeypatch.chdir(home)
    plan, out = hostile_plan(text), Path(f"out {folder}.")
    first, *_ = write_scripts(plan, text, out, kind)
    for name, content in (("python", PYTHON), ("sbatch", SBATCH), ("sky", SKY.format(python=sys.executable))):
        stand_in(tmp_path / "bin" / name, content)
    requests, submitted = tmp_path / "asked", tmp_path / "submitted"
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "FAKE_LAB": str(lab_base()),
        "REQUESTS": str(requests),
        "SUBMITTED": str(submitted),
    }
    command = ["sky", "launch", str(first)] if kind == "skypilot" else ["bash", "--", str(first)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "failed" not in done.stderr, done.stderr
    assert list(tmp_path.rglob("MARK*")) == []
    expected = [command_words(job) for job in job_contexts(plan, out).values()]
    found = calls(requests)
    if kind == "accelerate":
        training = ["-m", "accelerate.commands.launch", "--config_file"]
        assert sum(call[:3] == training for call in found) == 2
        found = [["-m", *call[call.index("sightline") :]] for call in found]
    assert sorted(found) == sorted(["-m", "sightline", *words] for words in expected)
    if kind == "slurm":
        for number, call in enumerate(calls(submitted), 1):
            options = [word for word in call if word.startswith("--output=")]
            assert options == [f"--output={str(out / 'logs').replace('%', '%%')}/stage-{number}-%a.log"]
            assert call[-1] == str(home / out / "launch" / f"stage-{number}.sbatch")
        for script in (home / out / "launch").glob("*.sbatch"):
            lines = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
            assert {line.split("=")[0] for line in lines} <= {
                f"#SBATCH --{name}" for name in ("array", "cpus-per-task", "mem", "time", "gres")
            }
    if kind == "skypilot":
        task = yaml.safe_load(first.read_text(encoding="utf-8"))
        assert set(task) == {"name", "resources", "workdir", "file_mounts", "setup", "run"}
        assert task["file_mounts"] == {f"~/sky_workdir/{out.as_posix()}/launch": f"{out.as_posix()}/launch"}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_the_folder_of_the_plan_is_found_from_elsewhere(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OUT outside of it: the way back, which holds the folder's name, is in `env.sh`."""
    home = tmp_path / f"home {text.replace('/', '')}."
    home.mkdir()
    monkeypatch.chdir(home)
    write_scripts(hostile_plan("x"), "s", tmp_path / "elsewhere", "slurm")
    line = 'source "$1" && printf %s "$ROOT"'
    command = ["bash", "-c", line, "bash", str(tmp_path / "elsewhere/launch/env.sh")]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == str(home)
    assert list(tmp_path.rglob("MARK*")) == []


def test_a_comment_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_scripts(hostile_plan("x\r\ntouch MARK\x1b[2J\u2028y"), "s", Path("out"), "accelerate")
    for script in (tmp_path / "out/launch/pieces").glob("*.sh"):
        comment = script.read_text(encoding="utf-8").split("\n")[1]
        assert r"x touch MARK\u001b[2J" in comment and comment.startswith("# ")


def test_a_folder_that_ends_in_a_newline_is_refused(tmp_path: Path) -> None:
    """No shell reads its name back: `$(pwd)` drops the newline."""
    with pytest.raises(InputError, match="ends in a newline"):
        write_scripts(hostile_plan("x"), "s", tmp_path / "out\n", "accelerate")


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x1b[2J", "a\u202eb", "a\u2028b", " a", "a ", ""])
@pytest.mark.parametrize("kind", ["arms", "pairs", "samples", "models", "level"])
def test_names_that_do_not_show_are_refused_at_the_config(name: str, kind: str) -> None:
    pairs = {"builder": "corrupted", "samples": "scenes", "set": {"writer": {"name": "oracle"}}}
    changed: dict[str, Any] = {
        "arms": {"arms": {name: {"pairs": "corrupted"}}},
        "pairs": {"pairs": {**STUDY["pairs"], name: pairs}},
        "samples": {"samples": {**STUDY["samples"], name: {"split": "preference", "count": 2}}},
        "models": {"models": {name: {"path": "lab"}}},
        "level": {"axes": {"loss": {name: {"pairs": "corrupted"}}}},
    }[kind]
    with pytest.raises(ValueError, match=r"a name (has no newline|is not empty)") as caught:
        StudyConfig.model_validate(json.loads(json.dumps({**STUDY, **changed})))
    assert not any(character in str(caught.value) for character in "\x1b\u202e\u2028")


@pytest.mark.parametrize("name", ["DPO, beta 0.1", "熊 é", "'quoted' $(x)", "[red]", "<b>"])
def test_names_that_show_are_names(name: str) -> None:
    assert name in StudyConfig.model_validate({**STUDY, "arms": {name: {"pairs": "corrupted"}}}).all_arms()


@pytest.mark.parametrize("seeds", [[-1], [2**32], [True], ["1"], [0.5]])
def test_seeds_are_checked_at_the_config(seeds: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"seeds\.0"):
        StudyConfig.model_validate({**STUDY, "seeds": seeds})
