"""A study as a real run leaves it, made up by rule: the plan of a config, its pieces filled, and their ledger."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import RootModel

from sightline.records.manifest import read_manifest
from sightline.study.config import StudyConfig
from sightline.study.ledger import Ledger, LedgerEntry
from sightline.study.plan import Job, StudyPlan, plan_study, plan_text
from tests.study.directories import BENCHMARKS, HOSTILE, evaluation, pairs, training

NAME = "shapes"
#: How often an arm is wrong where the untrained model is wrong once; others are as wrong as it.
BETTER = {"dpo": 0.3, "ipo": 0.6, "dpo-low": 0.5, "sharp": 0.02, "worse": 1.6}
CONFIG: dict[str, Any] = {
    "about": f"What objectives and pairs do to shapes. {HOSTILE}",
    "seeds": [0, 1],
    "samples": {"scenes": {"split": "preference", "count": 30}},
    "pairs": {
        "bdhs": {"builder": "bdhs", "samples": "scenes", "set": {"rho": 0.9}},
        "low": {"builder": "bdhs", "samples": "scenes", "set": {"rho": 0.5}},
    },
    "train": {"set": {"loss": {"name": "dpo", "beta": 0.1}, "optim": {"lr": 1e-4}, "max_steps": 60}},
    "arms": {
        "dpo": {"pairs": "bdhs"},
        "ipo": {"pairs": "bdhs", "set": {"loss": {"name": "ipo", "beta": 0.1}}},
        "dpo-low": {"pairs": "low"},
        "ipo-low": {"pairs": "low", "set": {"loss": {"name": "ipo", "beta": 0.1}}},
        "sharp": {"pairs": "bdhs", "set": {"loss": {"name": "dpo", "beta": 0.5}}},
        f"worse {HOSTILE}": {"pairs": "bdhs", "set": {"optim": {"lr": 1e-2}, "max_steps": 90}},
        "unfinished": {"pairs": "bdhs", "set": {"max_steps": 1}},
    },
    "evaluate": {"benchmarks": list(BENCHMARKS), "limit": 40},
}

Settings = RootModel[dict[str, Any]]


def study(root: Path, count: int = 40, **changes: Any) -> tuple[StudyPlan, Path]:
    """The plan and the directory of a study; trainings of `unfinished` failed, so that it is not measured."""
    plan = plan_study(StudyConfig.model_validate({**CONFIG, **changes}))
    out = root / "out"
    ledger = Ledger(out, write=True)
    runs = [(run.arm, run.seed, run.train, run.eval) for run in plan.runs]
    ledger.begin_study(NAME, plan.config.model_dump(mode="json"), runs, plan_text(plan))
    failed: set[str] = set()
    for key, piece in plan.jobs.items():
        if failed & set(piece.inputs.values()):
            failed.add(key)
            continue
        command = f"sightline {piece.kind} --out {out / piece.folder} --set 'note={HOSTILE}'"
        ledger.begin(LedgerEntry(key, piece.kind, piece.label, piece.folder, command, piece.seed, "running", None))
        if piece.label.startswith("unfinished") and piece.kind == "train":
            failed.add(key)
            ledger.end(key, "failed", seconds=1, note=f"Traceback\nValueError: no steps {HOSTILE}")
            continue
        fill(piece, plan, out / piece.folder, root / "pictures", count)
        manifest = read_manifest(out / piece.folder)
        ledger.end(key, "done", seconds=2.5, counts=dict(manifest.counts), numbers=manifest.numbers)
    return plan, out


def fill(piece: Job, plan: StudyPlan, folder: Path, pictures: Path, count: int) -> None:
    """Do a piece as a stage would have left it."""
    if piece.kind == "eval":
        arm = next((run.arm for run in plan.runs if run.eval is not None and plan.jobs[run.eval] == piece), "base")
        evaluation(folder, pictures, wrong_of(arm), count=count, seed=int(piece.key[:6], 16))
    elif piece.kind == "train":
        steps = int(piece.settings["config"]["max_steps"])
        training(folder, steps=steps, seed=piece.seed, config=Settings(piece.settings["config"]))
    elif piece.kind == "pairs":
        pairs(folder, count=20)
    else:
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes((pairs(folder.with_name("as-pairs")) / "manifest.json").read_bytes())


def wrong_of(arm: str, base: Mapping[str, float] | None = None) -> dict[str, float]:
    """How often an arm answers wrong, by benchmark; questions are answered as the untrained model does."""
    natural = dict(base or dict(zip(BENCHMARKS, (0.45, 0.2, 0.6, 0.35), strict=True)))
    factor = next((factor for name, factor in BETTER.items() if arm.split()[0] == name), 1.0)
    return {name: share if "ask" in name else min(0.95, share * factor) for name, share in natural.items()}
