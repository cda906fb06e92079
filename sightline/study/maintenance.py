"""Maintenance of a study directory: finding a job, comparing with another baseline, removing jobs.

Nothing is run here; see `runner`.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from sightline.errors import InputError
from sightline.study.config import BASE, StudyConfig
from sightline.study.ledger import Ledger, LedgerEntry
from sightline.study.plan import StudyPlan, parse_plan, plan_study
from sightline.study.results import Outcome, read_outcome


def find_job(ledger: Ledger, start: str) -> LedgerEntry:
    """The job whose key starts with `start`.

    Raises:
        InputError: there is none, or more than one.
    """
    found = [entry for key, entry in ledger.entries().items() if key.startswith(start)]
    if len(found) != 1:
        raise InputError(
            f"{ledger.path}: {len(found)} jobs have a key that starts with {start!r}; `study ls` lists them."
        )
    return found[0]


def read_plans(out: Path) -> dict[str, StudyPlan]:
    """The plan of every study that was run in a directory, by name, as it was run."""
    ledger = Ledger(out)
    texts = ledger.plans()
    return {name: _plan(texts.get(name), config) for name, config in ledger.studies().items()}


def _plan(text: str | None, config: dict[str, object]) -> StudyPlan:
    """The plan in the ledger; if it has none, or one of another version, it is derived from the config again."""
    try:
        return plan_study(StudyConfig.model_validate(config)) if text is None else parse_plan(text)
    except ValidationError:
        return plan_study(StudyConfig.model_validate(config))


def find_study(out: Path, name: str | None) -> tuple[str, StudyPlan]:
    """The name and the plan of the directory's study, or of the one named `name`.

    Raises:
        InputError: there is no such study, or several and `name` is None.
    """
    plans = read_plans(out)
    if name is None and len(plans) != 1:
        raise InputError(f"{out} holds the studies {', '.join(plans)}; name one with --study.")
    if name is not None and name not in plans:
        raise InputError(f"{out} holds no study {name!r}; there: {', '.join(plans)}.")
    name = name or next(iter(plans))
    return name, plans[name]


def study_outcome(out: Path, name: str | None, baseline: str | None) -> Outcome:
    """The outcome of a study of the directory, compared with `baseline` if given.

    Raises:
        InputError: there is no such study or arm, or several studies and `name` is None.
    """
    name, plan = find_study(out, name)
    if baseline is None:
        return read_outcome(plan, name, out)
    arms = plan.config.all_arms()
    if baseline != BASE and baseline not in arms:
        raise InputError(
            f"{name} has no arm {baseline!r}; arms: {', '.join(arms)}, and {BASE} for the untrained model."
        )
    config = plan.config.model_copy(update={"baseline": None if baseline == BASE else baseline})
    return read_outcome(replace(plan, config=config), name, out)


def remove(out: Path, starts: Sequence[str], *, unused: bool) -> list[LedgerEntry]:
    """Delete jobs and all jobs that depend on them; return what was deleted.

    Raises:
        InputError: no job was named, or a key matches no job or several.
    """
    ledger = Ledger(out, write=True)
    if bool(starts) == unused:
        raise InputError("name the jobs to remove by their keys, or give --unused.")
    plans = read_plans(out)
    entries = ledger.entries()
    needed = {key for plan in plans.values() for key in plan.jobs}
    keys = set(entries) - needed if unused else {find_job(ledger, start).key for start in starts}
    for plan in plans.values():
        for piece in plan.jobs.values():  # dependencies come first
            if keys & set(piece.inputs.values()):
                keys.add(piece.key)
    gone = [entry for key, entry in entries.items() if key in keys]
    for entry in gone:
        shutil.rmtree(out / entry.folder, ignore_errors=True)
    ledger.remove([entry.key for entry in gone])
    return gone
