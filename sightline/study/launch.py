"""Launch scripts that run a study on a machine with GPUs: one script per job, and one that starts them in order.

A script runs the job's command in the directory that `sightline study run` reads, so the next run or report finds its
results. Nothing is started here. `plan` lists the jobs.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml

from sightline.builders.registry import get_entry
from sightline.data.terminal import one_line
from sightline.errors import InputError
from sightline.records.store import atomic_write
from sightline.study.execute import JobContext, command_words, lab_base
from sightline.study.plan import Job, StudyPlan
from sightline.study.runner import job_contexts

LaunchKind = Literal["accelerate", "slurm", "skypilot"]
FOLDER, PIECES, ENVIRONMENT, COMMANDS = "launch", "pieces", "env.sh", "commands.sh"

_HERE = """here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")%s" && pwd)"
"""
_ENVIRONMENT = """# shellcheck shell=bash disable=SC2034
# Sourced by every script of this study. Edit it for your machine: it is written once and then kept.
# ROOT is the directory in which the study was planned; paths are relative to it.
ROOT="$(cd -- "$(dirname -- "${{BASH_SOURCE[0]}}")"/{root} && pwd)"
cd -- "$ROOT" || exit 1
PYTHON="${{PYTHON:-python}}" # or the one of an environment, such as .venv/bin/python
"""
_COMMANDS = """# shellcheck shell=bash disable=SC2034
# shellcheck source=/dev/null
source "$here/env.sh"
export TOKENIZERS_PARALLELISM=false
sightline() { "$PYTHON" -m sightline "$@"; }
LAB="$("$PYTHON" -c 'from sightline.lab import BASE; print(BASE)')" # the model that comes with Sightline
"""
_TRAINING = """sightline_train() {
    "$PYTHON" -m accelerate.commands.launch --config_file "${ACCELERATE:-$here/ddp.yaml}" -m sightline train "$@"
}"""
_ON_CARDS = """sightline_on_cards() { # CARDS COMMAND...: in one process a card
    local cards="$1"
    shift
    if [ "$cards" -eq 1 ]; then sightline "$@"; return; fi
    # Processes of several jobs may share a machine, so each job has a port of its own.
    port="$((20000 + (${SLURM_JOB_ID:-$$} * 16 + ${SLURM_ARRAY_TASK_ID:-0}) % 40000))"
    "$PYTHON" -m accelerate.commands.launch --config_file "${ACCELERATE:-$here/ddp.yaml}" \\
        --num_processes "$cards" --main_process_port "$port" -m sightline "$@"
}"""
_ALL = """failed=0
for piece in "$here"/pieces/*.sh; do
    bash "$piece" || { echo "failed: $piece" >&2; failed=1; } # jobs that depend on it fail too; the rest continue
done
exit "$failed"
"""
_SIDE_BY_SIDE = """# shellcheck source=/dev/null
source "$here/env.sh"
gpus="${{GPUS:-${{SKYPILOT_NUM_GPUS_PER_NODE:-1}}}}"
failed=0
# stage FILE CARDS: jobs that do not depend on each other run side by side, each on its own cards.
stage() {{
    local cards="$2" at_once first number=0
    at_once="$((gpus / (cards > 0 ? cards : 1)))"
    if [ "$at_once" -lt 1 ]; then at_once=1; fi
    for lane in $(seq 0 "$((at_once - 1))"); do
        (
            lost=0
            first="$((lane * cards))"
            if [ "$cards" -gt 0 ]; then
                CUDA_VISIBLE_DEVICES="$(seq -s, "$first" "$((first + cards - 1))")"
                export CUDA_VISIBLE_DEVICES
            fi
            while read -r piece; do
                if [ "$((number++ % at_once))" -ne "$lane" ]; then continue; fi
                bash "$here/pieces/$piece" < /dev/null || {{ echo "failed: $piece" >&2; lost=1; }}
            done < "$here/$1"
            exit "$lost"
        ) &
    done
    for lane in $(jobs -p); do wait "$lane" || failed=1; done # jobs that depend on it fail too; the rest continue
}}
{stages}
exit "$failed"
"""
_SUBMIT = """# shellcheck source=/dev/null
source "$here/env.sh"
export STUDY_LAUNCH="$here"
mkdir -p -- {logs}
previous=""
for stage in {stages}; do
    options=(--parsable --job-name={name}"-$stage" --output={output}"/stage-$stage-%a.log")
    if [ -n "$previous" ]; then options+=("--dependency=afterany:$previous"); fi # only dependents stop
    previous="$(sbatch "${{options[@]}}" "$here/stage-$stage.sbatch")"
    previous="${{previous%%;*}}"
    echo "stage $stage: job $previous"
done
"""
_ARRAY = """#!/usr/bin/env bash
# Stage {stage}: {what}. Submitted by `submit.sh`, which names its logs; edit the estimates of time and memory.
#SBATCH --array=0-{last}
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem={memory}
#SBATCH --time={time}
{gpu}set -euo pipefail
mapfile -t pieces < "$STUDY_LAUNCH/stage-{stage}.txt"
exec bash "$STUDY_LAUNCH/pieces/${{pieces[$SLURM_ARRAY_TASK_ID]}}"
"""
_SKY_SETUP = "python -m pip install --quiet -e .\n"


def write_scripts(plan: StudyPlan, name: str, out: Path, kind: LaunchKind) -> list[Path]:
    """Write `OUT/launch`; return the files that start the study, the one to run first.

    Scripts of an earlier plan are removed; `env.sh` is kept, since users edit it.

    Names and paths may hold any character that a file system allows: shell text is quoted by `shlex.quote`, YAML by
    `yaml.safe_dump`, comments are one line, and #SBATCH lines hold no names.

    Raises:
        InputError: `out` is not below the working directory, which SkyPilot uploads; or a folder's name ends in a
            newline, which the shell cannot read back.
    """
    out = Path(os.path.relpath(out)) if out.absolute().is_relative_to(Path.cwd()) else out
    if kind == "skypilot" and out.is_absolute():
        raise InputError(f"SkyPilot uploads the working directory, and {out} is not below it; choose another --out")
    if any(part.endswith("\n") for part in out.absolute().parts):
        raise InputError(f"a folder of {str(out)!r} has a name that ends in a newline; choose another --out")
    launch = out / FOLDER
    jobs = job_contexts(plan, out)
    scripts = {key: f"{number:04d}-{Path(job.piece.folder).name}.sh" for number, (key, job) in enumerate(jobs.items())}
    for old in (*(launch / PIECES).glob("*.sh"), *launch.glob("stage-*")):
        old.unlink()
    for key, job in jobs.items():
        _write(launch / PIECES / scripts[key], _script(job, kind, _cards(plan, job.piece)))
    if not (launch / ENVIRONMENT).exists():
        root = os.path.relpath(Path.cwd(), launch)
        _write(launch / ENVIRONMENT, _ENVIRONMENT.format(root=shlex.quote(root)))
    _write(launch / COMMANDS, f"{_COMMANDS}{_TRAINING if kind == 'accelerate' else _ON_CARDS}\n")
    writers: dict[LaunchKind, Callable[[], list[Path]]] = {
        "accelerate": lambda: _for_accelerate(launch),
        "slurm": lambda: _for_slurm(plan, scripts, name, out),
        "skypilot": lambda: _for_skypilot(plan, scripts, name, out),
    }
    return writers[kind]()


def plan_stages(plan: StudyPlan) -> list[list[Job]]:
    """Jobs in stages: a stage depends only on earlier stages, and all of its jobs need equally many GPUs, or none."""
    depth: dict[str, int] = {}
    for key, piece in plan.jobs.items():
        depth[key] = 1 + max((depth[before.key] for before in plan.before(piece)), default=0)
    groups: dict[tuple[int, int], list[Job]] = {}
    for key, piece in plan.jobs.items():
        groups.setdefault((depth[key], _cards(plan, piece)), []).append(piece)
    return [groups[place] for place in sorted(groups)]


def _cards(plan: StudyPlan, piece: Job) -> int:
    """The GPUs of a job: 0 if no model runs in it."""
    return int(getattr(plan.config.launch, piece.kind, 1)) if _needs_gpu(piece) else 0


def _needs_gpu(piece: Job) -> bool:
    if piece.server is not None:
        return False
    builder = piece.settings.get("builder")
    asks_a_model = "curate" in piece.settings or (builder is not None and get_entry(builder).needs_model)
    return piece.kind in ("train", "eval") or asks_a_model


def _script(job: JobContext, kind: LaunchKind, cards: int) -> str:
    words = command_words(job)
    if kind == "accelerate":
        command = ["sightline", *words] if words[0] != "train" else ["sightline_train", *words[1:]]
    else:
        command = ["sightline", *words] if cards <= 1 else ["sightline_on_cards", str(cards), *words]
    base = str(lab_base())
    line = " ".join('"$LAB"' if word == base else shlex.quote(word) for word in command)
    about = _comment(f"{job.piece.kind} {job.piece.label}; key {job.piece.key[:10]}")
    source = '# shellcheck source=/dev/null\nsource "$here/commands.sh"\n'
    return f"#!/usr/bin/env bash\n{about}set -euo pipefail\n{_HERE % '/..'}{source}{line}\n"


def _comment(text: str) -> str:
    """A shell or YAML comment, on one line for any text."""
    return f"# {one_line(text)}\n"


def _copy_configs(launch: Path) -> None:
    """Copy the launcher's configs; `num_processes` in them is the user's."""
    shipped = files("sightline.train") / "launch"
    for name in ("ddp.yaml", "fsdp2.yaml", "fsdp2-zero2.yaml"):
        if not (launch / name).exists():
            _write(launch / name, (shipped / name).read_text(encoding="utf-8"))


def _for_accelerate(launch: Path) -> list[Path]:
    _copy_configs(launch)
    about = "# Runs every job in order, training on all GPUs in ddp.yaml. Run it again to resume.\n"
    return [_write(launch / "run.sh", f"#!/usr/bin/env bash\n{about}set -uo pipefail\n{_HERE % ''}{_ALL}")]


def _for_slurm(plan: StudyPlan, scripts: Mapping[str, str], name: str, out: Path) -> list[Path]:
    launch, logs = out / FOLDER, str(out / "logs")
    stages = _write_stages(plan, scripts, launch)
    arrays = []
    for number, pieces in enumerate(stages, 1):
        cards = _cards(plan, pieces[0])
        kinds = dict.fromkeys(piece.kind for piece in pieces)
        text = _ARRAY.format(
            stage=number,
            what=f"{len(pieces)} jobs ({', '.join(kinds)})",
            last=len(pieces) - 1,
            cpus=8 * max(1, cards),
            memory=f"{64 * cards}G" if cards else "16G",
            time="24:00:00" if cards else "04:00:00",
            gpu=f"#SBATCH --gres=gpu:{cards}\n" if cards else "",
        )
        arrays.append(_write(launch / f"stage-{number}.sbatch", text))
    about = "# Submits an array for each stage; each waits for the previous one.\n"
    submit = _SUBMIT.format(
        logs=shlex.quote(logs),
        output=shlex.quote(logs.replace("%", "%%")),  # Slurm fills in what follows a single one
        name=shlex.quote(_plain_name(name)),
        stages=" ".join(str(number) for number in range(1, len(stages) + 1)),
    )
    text = f"#!/usr/bin/env bash\n{about}set -euo pipefail\n{_HERE % ''}{submit}"
    return [_write(launch / "submit.sh", text), *arrays]


def _write_stages(plan: StudyPlan, scripts: Mapping[str, str], launch: Path) -> list[list[Job]]:
    """Write the scripts of each stage into a file of names, and the launcher's configs if a job has several cards."""
    stages = plan_stages(plan)
    for number, pieces in enumerate(stages, 1):
        _write(launch / f"stage-{number}.txt", "".join(f"{scripts[piece.key]}\n" for piece in pieces))
    if any(_cards(plan, pieces[0]) > 1 for pieces in stages):
        _copy_configs(launch)
    return stages


def _for_skypilot(plan: StudyPlan, scripts: Mapping[str, str], name: str, out: Path) -> list[Path]:
    launch = out / FOLDER
    stages = _write_stages(plan, scripts, launch)
    cards = [_cards(plan, pieces[0]) for pieces in stages]
    lines = "\n".join(f"stage stage-{number}.txt {count}" for number, count in enumerate(cards, 1))
    about = "# Runs every job after those that it needs, on all GPUs of the machine. Run it again to resume.\n"
    text = _SIDE_BY_SIDE.format(stages=lines)
    _write(launch / "run.sh", f"#!/usr/bin/env bash\n{about}set -uo pipefail\n{_HERE % ''}{text}")
    here, script = launch.as_posix(), shlex.quote(f"{launch.as_posix()}/run.sh")
    task = {
        "name": _plain_name(name),
        "resources": {"accelerators": f"A100-80GB:{_machine_size(stages, cards)}", "disk_size": 512},
        "workdir": ".",
        "file_mounts": {f"~/sky_workdir/{here}": here},
        "setup": _SKY_SETUP,
        "run": f"bash -- {script}\n",
    }
    started = shlex.join(["sky", "launch", f"{here}/study.sky.yaml"])
    copied = shlex.join(["rsync", "-a", f"CLUSTER:sky_workdir/{out.as_posix()}/", f"{out.as_posix()}/"])
    about = (
        _comment(started)
        + _comment(f"Runs independent jobs side by side on one machine; afterwards: {copied}")
        + _comment("git ignores the folder in file_mounts, so workdir does not contain it.")
    )
    text = about + yaml.safe_dump(task, sort_keys=False, allow_unicode=True)
    return [_write(launch / "study.sky.yaml", text), launch / "run.sh"]


def _machine_size(stages: list[list[Job]], cards: list[int]) -> int:
    """GPUs of one machine: enough for all jobs of a stage at once, but no more than machines commonly have."""
    most = max((len(pieces) * count for pieces, count in zip(stages, cards, strict=True)), default=1)
    largest = max(cards, default=1)
    return next((size for size in (1, 2, 4, 8) if size >= min(most, 8) and size >= largest), max(largest, 1))


def _plain_name(name: str) -> str:
    """A study's name as schedulers take it: letters, digits, and single signs between them."""
    return "-".join(re.findall(r"[A-Za-z0-9]+(?:[._][A-Za-z0-9]+)*", name)) or "study"


def _write(path: Path, text: str) -> Path:
    with atomic_write(path, sync=False) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.chmod(0o755 if path.suffix == ".sh" else 0o644)
    return path
