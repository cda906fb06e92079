"""Every number of a study's report, for `results.json`, `results.csv` and the page."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sightline.evals.statistics import RESAMPLES
from sightline.records.rows import Estimate
from sightline.report.curves import Curve
from sightline.report.formatting import difference_text, interval_text, value_text
from sightline.study.config import BASE
from sightline.study.report.ingredients import Effect, arm_recipe, axis_levels, compute_effects, contrasts
from sightline.study.report.learning import Learned, Runs, learning
from sightline.study.report.pair_sets import PairFolder, PairSetSummary, pair_sets
from sightline.study.report.tradeoff import Tradeoff, tradeoffs
from sightline.study.results import ArmFinding, Cost, Evidence, Outcome, outcome
from sightline.train.log import LOG_NAME, read_log


class StudyResults(Outcome):
    """The outcome, effects of single ingredients, trade-offs, numbers of the pairs, and the ends of the curves."""

    effects: tuple[Effect, ...]
    tradeoffs: tuple[Tradeoff, ...]
    pair_sets: tuple[PairSetSummary, ...]
    learned: tuple[Learned, ...]


class StudyMaterial(NamedTuple):
    """All numbers, the learning curves, the pairs to show, and how often images were resampled."""

    results: StudyResults
    curves: list[Curve]
    folders: list[PairFolder]
    resamples: int


def study_material(evidence: Evidence, resamples: int = RESAMPLES) -> StudyMaterial:
    """Compute everything that the report shows."""
    found = outcome(evidence, resamples)
    recipes = {arm: arm_recipe(evidence, arm) for arm in evidence.arms}
    first = evidence.baseline(next(iter(evidence.bases)))
    found_contrasts = contrasts(recipes, axis_levels(evidence.plan.config), first)
    sets, folders = pair_sets(evidence)
    curves, learned = learning(_logs(evidence), {arm: recipe.get("loss") for arm, recipe in recipes.items()})
    results = StudyResults(
        **dict(found),
        effects=compute_effects(evidence, found_contrasts, resamples),
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


#: `table` is the row's topic: arm, ingredient, cost, pairs or training.
COLUMNS = (
    *("table", "arm", "against", "ingredient", "benchmark", "metric", "unit"),
    *("value", "value_low", "value_high", "n", "unscored", "images"),
    *("difference", "difference_low", "difference_high", "p", "p_holm", "verdict", "by_seed"),
)
_SECONDS = ("pair_seconds", "train_seconds", "eval_seconds")
_AMOUNTS = ("rows", "steps", "answer_tokens")


def csv_text(results: StudyResults) -> str:
    """One row per number; columns that do not apply are empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(_rows(results))
    return file.getvalue()


def _rows(results: StudyResults) -> Iterator[dict[str, object]]:
    for found in results.findings:
        against = results.baseline if found.difference is not None else ""
        yield {"table": "arm", "arm": found.arm, "against": against, **_value(found.value), **_numbers(found)}
    for effect in results.effects:
        names = {"table": "ingredient", "arm": effect.after, "against": effect.before, "ingredient": effect.ingredient}
        yield {**names, **_numbers(effect)}
    for cost in results.costs:
        yield from _cost(cost)
    for pairs in results.pair_sets:
        yield from _pairs(pairs)
    for curve in results.learned:
        for metric, value in (("first tenth", curve.first), ("last tenth", curve.last)):
            unit = {"unit": curve.unit, "value": value}
            yield {"table": "training", "arm": curve.arm, "metric": f"{curve.quantity}, {metric}", **unit}


def _numbers(found: ArmFinding | Effect) -> dict[str, object]:
    difference = found.difference
    low, high = (difference.ci95 if difference else None) or (None, None)
    return {
        "benchmark": found.benchmark,
        "metric": found.metric,
        "unit": found.unit,
        "images": found.images,
        "difference": difference.value if difference else None,
        "difference_low": low,
        "difference_high": high,
        "p": found.p,
        "p_holm": found.p_holm,
        "verdict": found.verdict,
        "by_seed": " ".join("" if seed is None else repr(seed) for seed in found.by_seed),
    }


def _value(estimate: Estimate) -> dict[str, object]:
    low, high = estimate.ci95 or (None, None)
    return {
        "value": estimate.value,
        "value_low": low,
        "value_high": high,
        "n": estimate.n,
        "unscored": estimate.unscored,
    }


def _cost(cost: Cost) -> Iterator[dict[str, object]]:
    for names, unit in ((_SECONDS, "seconds"), (_AMOUNTS, "number")):
        for name in names:
            yield {"table": "cost", "arm": cost.arm, "metric": name, "unit": unit, "value": getattr(cost, name)}


def _pairs(found: PairSetSummary) -> Iterator[dict[str, object]]:
    numbers: dict[str, float | None] = {
        **found.counts,
        **{f"dropped: {reason}": count for reason, count in found.dropped.items()},
        **found.numbers,
        "chosen_words": found.chosen_words,
        "rejected_words": found.rejected_words,
        "chosen_longer": found.chosen_longer,
    }
    for name, value in numbers.items():
        yield {"table": "pairs", "arm": found.name, "metric": name, "unit": "number", "value": value}


def terminal_rows(outcome: Outcome, metrics: Sequence[tuple[str, str]] = ()) -> Iterator[tuple[str, ...]]:
    """(arm, benchmark, metric, value, difference, interval, verdict) of the metrics named, or of the primary ones."""
    for found in outcome.findings:
        if (found.benchmark, found.metric) in metrics or (not metrics and found.primary):
            value = value_text(found.value.value, found.unit)
            if found.difference is None:
                cells: tuple[str, ...] = (BASE if found.arm == BASE else "", "", "")
                cells = ("", interval_text(found.value.ci95, found.unit, signed=False), "baseline")
            else:
                interval = interval_text(found.difference.ci95, found.unit, signed=True)
                cells = (difference_text(found.difference.value, found.unit), interval, found.verdict)
            yield (found.arm, found.benchmark, found.metric, value, *cells)
