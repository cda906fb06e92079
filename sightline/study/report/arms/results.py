"""Every number of a study's report, as `results.json` holds them, with what of it was drawn.

How each is made is told where it is made; the layout is `page`.
"""

from typing import NamedTuple

from sightline.evals.statistics import RESAMPLES
from sightline.study.evidence import Evidence
from sightline.study.outcome import Outcome, outcome
from sightline.study.report.arms.effects import Effect, effects_of
from sightline.study.report.arms.ingredients import contrasts
from sightline.study.report.arms.learning import Learned, Runs, learning
from sightline.study.report.arms.pair_sets import PairFolder, PairSet, pair_sets
from sightline.study.report.arms.recipes import axis_levels, recipe_of
from sightline.study.report.arms.tradeoff import Tradeoff, tradeoffs
from sightline.study.report.curves import Curve
from sightline.train.log import LOG_NAME, read_log


class StudyResults(Outcome):
    """The outcome, effects of single ingredients, trade-offs, numbers of the pairs, and the ends of the curves."""

    effects: tuple[Effect, ...]
    tradeoffs: tuple[Tradeoff, ...]
    pair_sets: tuple[PairSet, ...]
    learned: tuple[Learned, ...]


class StudyMaterial(NamedTuple):
    """All numbers, the learning curves, the pairs to show, and how often images were resampled."""

    results: StudyResults
    curves: list[Curve]
    folders: list[PairFolder]
    resamples: int


def study_material(evidence: Evidence, resamples: int = RESAMPLES) -> StudyMaterial:
    """Everything that the report is made of."""
    found = outcome(evidence, resamples)
    recipes = {arm: recipe_of(evidence, arm) for arm in evidence.arms}
    first = evidence.baseline(next(iter(evidence.bases)))
    told = contrasts(recipes, axis_levels(evidence.plan.config), first)
    sets, folders = pair_sets(evidence)
    curves, learned = learning(_logs(evidence), {arm: recipe.get("loss") for arm, recipe in recipes.items()})
    results = StudyResults(
        **dict(found),
        effects=effects_of(evidence, told, resamples),
        tradeoffs=tradeoffs(found.findings),
        pair_sets=sets,
        learned=learned,
    )
    return StudyMaterial(results, curves, folders, resamples)


def _logs(evidence: Evidence) -> dict[str, Runs]:
    return {
        arm: [list(read_log(evidence.folder(run.train) / LOG_NAME)) for run in evidence.runs(arm)]
        for arm in evidence.arms
    }
