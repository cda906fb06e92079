"""A study's numbers as rows: every one of them for `results.csv`, the primary ones for the terminal.

It computes nothing. The page is `report.arms`; numbers are written for people by `report.formatting`.
"""

import csv
import io
from collections.abc import Iterator, Sequence

from sightline.records.rows import Estimate
from sightline.study.config import BASE
from sightline.study.outcome import Cost, Finding, Outcome
from sightline.study.report.arms.effects import Effect
from sightline.study.report.arms.pair_sets import PairSet
from sightline.study.report.arms.results import StudyResults
from sightline.study.report.formatting import difference_text, interval_text, value_text

#: `table` says what a row is about: an arm, an ingredient, what an arm cost, its pairs, or its training.
COLUMNS = (
    *("table", "arm", "against", "ingredient", "benchmark", "metric", "unit"),
    *("value", "value_low", "value_high", "n", "unscored", "images"),
    *("difference", "difference_low", "difference_high", "p", "p_holm", "verdict", "by_seed"),
)
_SECONDS = ("pair_seconds", "train_seconds", "eval_seconds")
_AMOUNTS = ("rows", "steps", "answer_tokens")


def csv_text(results: StudyResults) -> str:
    """One row a number, cells empty where a column says nothing of it."""
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
    for told in results.learned:
        for metric, value in (("first tenth", told.first), ("last tenth", told.last)):
            unit = {"unit": told.unit, "value": value}
            yield {"table": "training", "arm": told.arm, "metric": f"{told.quantity}, {metric}", **unit}


def _numbers(found: Finding | Effect) -> dict[str, object]:
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


def _value(made: Estimate) -> dict[str, object]:
    low, high = made.ci95 or (None, None)
    return {"value": made.value, "value_low": low, "value_high": high, "n": made.n, "unscored": made.unscored}


def _cost(cost: Cost) -> Iterator[dict[str, object]]:
    for names, unit in ((_SECONDS, "seconds"), (_AMOUNTS, "number")):
        for name in names:
            yield {"table": "cost", "arm": cost.arm, "metric": name, "unit": unit, "value": getattr(cost, name)}


def _pairs(found: PairSet) -> Iterator[dict[str, object]]:
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
                told: tuple[str, ...] = (BASE if found.arm == BASE else "", "", "")
                told = ("", interval_text(found.value.ci95, found.unit, signed=False), "baseline")
            else:
                interval = interval_text(found.difference.ci95, found.unit, signed=True)
                told = (difference_text(found.difference.value, found.unit), interval, found.verdict)
            yield (found.arm, found.benchmark, found.metric, value, *told)
