"""What a study's directory holds so far: the evaluations of every arm by seed, read once for all that is made of them.

It reads the ledger and the directories of finished pieces; no model, no torch, and no number is computed. What is made
of it is `outcome` and `report.arms`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.errors import InputError
from sightline.evals.directory import BenchmarkResult, read_evaluation
from sightline.study.config import BASE, full_name
from sightline.study.finished import folder_of
from sightline.study.ledger import Entry, Ledger
from sightline.study.plan import Run, StudyPlan

Evaluations = Mapping[str, BenchmarkResult]


@dataclass(frozen=True)
class Evidence:
    """A study with what is done of it, arms by their full names.

    `bases` has the evaluation of each untrained model, by the model's name; `arms` those of every arm that is done with
    every seed, one a seed; `missing` names the others. `entries` are the pieces of all studies of the directory.
    """

    name: str
    plan: StudyPlan
    out: Path
    entries: Mapping[str, Entry]
    bases: Mapping[str, Evaluations]
    arms: Mapping[str, tuple[Evaluations, ...]]
    missing: tuple[str, ...]

    def baseline(self, model: str) -> str:
        """The arm that others of this model are compared with."""
        return full_name(model, self.plan.config.baseline or BASE)

    def of_model(self, model: str) -> dict[str, tuple[Evaluations, ...]]:
        """The evaluations of a model's arms, the untrained one first, which answers alike with every seed."""
        untrained = (self.bases[model],) * len(self.plan.config.seeds)
        own = dict.fromkeys(run.arm for run in self.plan.runs if run.model == model and run.arm in self.arms)
        return {full_name(model, BASE): untrained} | {arm: self.arms[arm] for arm in own}

    def runs(self, arm: str) -> tuple[Run, ...]:
        """The runs of an arm, one a seed."""
        return tuple(run for run in self.plan.runs if run.arm == arm)

    def folder(self, key: str) -> Path:
        """The directory of a piece of the plan."""
        return folder_of(self.plan.pieces[key], self.out)


def gather(plan: StudyPlan, name: str, out: Path) -> Evidence:
    """Read what is done of a study.

    Raises:
        InputError: an untrained model or a baseline is not measured yet.
    """
    entries = Ledger(out).entries()
    if not all(is_done(entries, key) for key in plan.bases.values()):
        raise InputError(f"{out}: the untrained model is not measured yet; run `sightline study` to the end.")

    def read(key: str) -> Evaluations:
        return read_evaluation(folder_of(plan.pieces[key], out), plan.config.evaluate.benchmarks)

    missing = _missing(plan.runs, entries)
    arms: dict[str, tuple[Evaluations, ...]] = {}
    for run in plan.runs:
        if run.eval is not None and run.arm not in missing:
            arms[run.arm] = (*arms.get(run.arm, ()), read(run.eval))
    for model in plan.bases:
        baseline = full_name(model, plan.config.baseline or BASE)
        if plan.config.baseline is not None and baseline not in arms:
            raise InputError(
                f"{out}: the baseline {baseline!r} is not measured with every seed; run `sightline study` to the end."
            )
    bases = {model: read(key) for model, key in plan.bases.items()}
    return Evidence(name, plan, out, entries, bases, arms, missing)


def is_done(entries: Mapping[str, Entry], key: str) -> bool:
    """Whether a piece is complete, by the ledger."""
    return key in entries and entries[key].state == "done"


def _missing(runs: Sequence[Run], entries: Mapping[str, Entry]) -> tuple[str, ...]:
    left = (run.arm for run in runs if run.eval is not None and not is_done(entries, run.eval))
    return tuple(dict.fromkeys(left))
