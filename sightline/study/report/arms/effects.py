"""What one ingredient does with all others held: its paired difference over images and seeds, in all arms that show it.

Which arms those are is `ingredients`; the bootstrap is `evals.statistics`.
"""

from collections.abc import Sequence

from sightline.evals.significance import holm
from sightline.evals.statistics import RESAMPLES, compare
from sightline.records.rows import Estimate, Row, Score
from sightline.study.evidence import Evidence
from sightline.study.report.arms.ingredients import Contrast
from sightline.study.report.formatting import Unit
from sightline.study.report.results import Verdict, verdict


class Effect(Row):
    """One metric's difference between two levels of an ingredient, `after` minus `before`.

    `pairings` are the arms compared, each with the same seed and on the same images; where there are several, numbers
    are their mean. `p_holm` is corrected over all effects of the study in primary metrics that have a direction: those
    that are shown.
    """

    ingredient: str
    before: str
    after: str
    pairings: tuple[tuple[str, str], ...]
    benchmark: str
    metric: str
    label: str
    unit: Unit
    higher_is_better: bool | None
    primary: bool
    difference: Estimate
    verdict: Verdict
    by_seed: tuple[float | None, ...]
    images: int
    p: float | None = None
    p_holm: float | None = None


def effects_of(evidence: Evidence, found: Sequence[Contrast], resamples: int = RESAMPLES) -> tuple[Effect, ...]:
    """Every metric of every contrast."""
    made = [effect for contrast in found for effect in _effects(evidence, contrast, resamples)]
    family = [effect for effect in made if effect.primary and effect.higher_is_better is not None]
    corrected = {id(e): p for e, p in zip(family, holm([e.p for e in family]), strict=True)}
    return tuple(effect.model_copy(update={"p_holm": corrected.get(id(effect))}) for effect in made)


def _effects(evidence: Evidence, contrast: Contrast, resamples: int) -> list[Effect]:
    """Runs go setting by setting, and within one seed by seed, as `compare` wants them."""
    runs = [
        pair
        for before, after in contrast.pairings
        for pair in zip(evidence.arms[before], evidence.arms[after], strict=True)
    ]
    made = []
    for benchmark, first in runs[0][0].items():
        scores: list[tuple[Sequence[Score], Sequence[Score]]] = [
            (before[benchmark].scores, after[benchmark].scores) for before, after in runs
        ]
        for name, found in compare(scores, first.metrics, settings=len(contrast.pairings), resamples=resamples).items():
            metric = first.metrics[name]
            made.append(
                Effect(
                    **contrast._asdict(),
                    benchmark=benchmark,
                    metric=name,
                    label=metric.label,
                    unit=metric.unit,
                    higher_is_better=metric.higher_is_better,
                    primary=metric.primary,
                    difference=found.difference,
                    verdict=verdict(found.difference, metric.higher_is_better),
                    by_seed=found.by_seed,
                    images=found.clusters,
                    p=found.p,
                )
            )
    return made
