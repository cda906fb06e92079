"""Looking into a study's directory afterwards: one piece, the outcome against another arm, and taking pieces away.

What runs is `runner`; here nothing is begun.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from sightline.errors import InputError
from sightline.study.config import BASE, StudyConfig
from sightline.study.ledger import Ledger, LedgerEntry
from sightline.study.plan import StudyPlan, plan_of_text, plan_study
from sightline.study.results import Outcome, outcome_of


def piece_of(ledger: Ledger, start: str) -> LedgerEntry:
    """The piece whose key begins so.

    Raises:
        InputError: there is none, or more than one.
    """
    found = [entry for key, entry in ledger.entries().items() if key.startswith(start)]
    if len(found) != 1:
        raise InputError(
            f"{ledger.path}: {len(found)} pieces have a key that begins with {start!r}; `study ls` lists them."
        )
    return found[0]


def plans_in(out: Path) -> dict[str, StudyPlan]:
    """The plan of every study that was run in a directory, by name, as it was then."""
    ledger = Ledger(out)
    texts = ledger.plans()
    return {name: _plan(texts.get(name), config) for name, config in ledger.studies().items()}


def _plan(text: str | None, config: dict[str, object]) -> StudyPlan:
    """The plan that the ledger keeps; of one that keeps none, or another version's, made anew of the config."""
    try:
        return plan_study(StudyConfig.model_validate(config)) if text is None else plan_of_text(text)
    except ValidationError:
        return plan_study(StudyConfig.model_validate(config))


def study_in(out: Path, name: str | None) -> tuple[str, StudyPlan]:
    """The study of the directory, or the one of them that is named, with its plan.

    Raises:
        InputError: no such study, or several and none named.
    """
    plans = plans_in(out)
    if name is None and len(plans) != 1:
        raise InputError(f"{out} holds the studies {', '.join(plans)}; name one with --study.")
    if name is not None and name not in plans:
        raise InputError(f"{out} holds no study {name!r}; there: {', '.join(plans)}.")
    name = name or next(iter(plans))
    return name, plans[name]


def outcome_in(out: Path, name: str | None, baseline: str | None) -> Outcome:
    """The outcome of a study of the directory, compared with `baseline` where one is named.

    Raises:
        InputError: no such study or arm, or several studies and none named.
    """
    name, plan = study_in(out, name)
    if baseline is None:
        return outcome_of(plan, name, out)
    arms = plan.config.all_arms()
    if baseline != BASE and baseline not in arms:
        raise InputError(
            f"{name} has no arm {baseline!r}; arms: {', '.join(arms)}, and {BASE} for the untrained model."
        )
    config = plan.config.model_copy(update={"baseline": None if baseline == BASE else baseline})
    return outcome_of(replace(plan, config=config), name, out)


def remove(out: Path, starts: Sequence[str], *, unused: bool) -> list[LedgerEntry]:
    """Delete pieces and everything that stands on them; what was deleted.

    Raises:
        InputError: nothing was named, or a name fits no piece or several.
    """
    ledger = Ledger(out, write=True)
    if bool(starts) == unused:
        raise InputError("name the pieces to remove by their keys, or give --unused.")
    plans = plans_in(out)
    entries = ledger.entries()
    needed = {key for plan in plans.values() for key in plan.pieces}
    keys = set(entries) - needed if unused else {piece_of(ledger, start).key for start in starts}
    for plan in plans.values():
        for piece in plan.pieces.values():  # in an order in which a piece comes after those it stands on
            if keys & set(piece.inputs.values()):
                keys.add(piece.key)
    gone = [entry for key, entry in entries.items() if key in keys]
    for entry in gone:
        shutil.rmtree(out / entry.folder, ignore_errors=True)
    ledger.remove([entry.key for entry in gone])
    return gone
