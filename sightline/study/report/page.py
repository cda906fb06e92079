"""The contents of a study's page, shared by HTML and Markdown.

Nothing is computed here: `study_results` has the numbers, `words` and `methods` the sentences, `drawings` the plots,
the templates layout and wording.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import yaml

from sightline.report.curves import Curve
from sightline.report.formatting import difference_text, interval_text
from sightline.report.gallery import PairView, data_uri, pair_views
from sightline.study.ledger import LedgerEntry
from sightline.study.report import answers, drawings, headlines, words
from sightline.study.report.ingredients import Effect, manifests, revisions
from sightline.study.report.methods import methods
from sightline.study.report.pair_sets import PairFolder, PairSetSummary
from sightline.study.report.study_results import StudyMaterial, StudyResults
from sightline.study.report.tradeoff import RULE
from sightline.study.results import ArmFinding, Evidence

#: Limits on the page's size: at most 36 cards of answers and 24 pairs, mostly with one image of about 40 kB (a third
#: more as text), and plots of about 1 MB in total, so that ten arms with three seeds stay below 6 MB.
PICTURE_SIDE, PICTURE_BYTES = 280, 40_000
PAIRS_EACH, PAIRS_IN_ALL = 4, 24


class Column(NamedTuple):
    """A metric of a table."""

    benchmark: str
    metric: str
    label: str
    better: str


class PageTable(NamedTuple):
    """Arms by metrics; a cell is None if the arm lacks the metric."""

    name: str
    columns: list[Column]
    rows: list[tuple[str, list[ArmFinding | None]]]


class EffectLine(NamedTuple):
    """A row of the ingredients' table; `scale` is the difference at the edge of its drawn interval."""

    metric: Effect
    scale: float


class PairNumbers(NamedTuple):
    """One number for every set of pairs, None if a set lacks it."""

    name: str
    values: list[float | None]


class StudyPage(NamedTuple):
    """A job with the last line of its error; `entry` is None if it was not started."""

    kind: str
    label: str
    key: str
    state: str
    entry: LedgerEntry | None
    note: str


def context(evidence: Evidence, material: StudyMaterial) -> dict[str, object]:
    """The variables of the templates."""
    results = material.results
    found = manifests(evidence)
    arms = evidence.arms
    picture = partial(data_uri, side=PICTURE_SIDE, size=PICTURE_BYTES)
    return {
        "results": results,
        "headline": headlines.headline_sentence(results),
        "contrasts": headlines.contrast_sentences(results),
        "design": words.design_sentence(results),
        "verdicts": words.verdict_sentences(results),
        "main": _table("", results, words.primary_metrics(results.findings)),
        "tables": _benchmark_tables(results),
        "forests": _forests(results),
        "fronts": _fronts(results, {arm: place for place, arm in enumerate(arms)}),
        "rule": RULE,
        "effects": _effect_lines(results),
        "curves": material.curves,
        "arms": list(arms),
        "colors": drawings.colors(len(arms)),
        "pair_numbers": _pair_numbers(results.pair_sets),
        "pair_outcome": _pair_outcome(results),
        "pairs": _shown_pairs(material.folders, picture),
        "boards": _boards(evidence, picture),
        "answers_rule": answers.RULE,
        "methods": methods(evidence, material.resamples),
        "pieces": [_job_row(evidence, key) for key in evidence.plan.jobs],
        "versions": {name: version for manifest in found for name, version in manifest.versions.items()},
        "revisions": revisions(found),
        "warnings": list(dict.fromkeys(line for manifest in found for line in manifest.warnings)),
        "config": yaml.safe_dump(
            evidence.plan.config.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True
        ),
        "out": str(evidence.out),
        "name_of": words.name,
        "starred": words.starred,
    }


def _boards(evidence: Evidence, picture: Any) -> list[answers.Board]:
    """Boards of every model in turn, within the page's limit."""
    places = {arm: place for place, arm in enumerate(evidence.arms)}
    each = max(1, answers.BENCHMARKS // len(evidence.bases))
    return [
        board
        for model, base in list(evidence.bases.items())[: answers.BENCHMARKS]
        for own in [{arm: runs[0] for arm, runs in evidence.of_model(model).items() if arm in places}]
        for board in answers.boards(base, own, places, each, picture)
    ]


def _table(name: str, results: StudyResults, keys: Sequence[tuple[str, str]]) -> PageTable:
    found = {(f.arm, f.benchmark, f.metric): f for f in results.findings}
    first = {(f.benchmark, f.metric): f for f in reversed(results.findings)}
    columns = [Column(*key, first[key].label, _better(first[key].higher_is_better)) for key in keys]
    arms = dict.fromkeys(f.arm for f in results.findings)
    return PageTable(name, columns, [(arm, [found.get((arm, *key)) for key in keys]) for arm in arms])


def _benchmark_tables(results: StudyResults) -> list[PageTable]:
    """One table per benchmark with its other metrics; metrics without a value are left out."""
    named = words.primary_metrics(results.findings)
    tables = []
    for benchmark in dict.fromkeys(f.benchmark for f in results.findings):
        rows = [f for f in results.findings if f.benchmark == benchmark and f.value.value is not None]
        keys = list(dict.fromkeys((f.benchmark, f.metric) for f in rows if (f.benchmark, f.metric) not in named))
        if keys:
            tables.append(_table(benchmark, results, keys))
    return tables


def _forests(results: StudyResults) -> list[Curve]:
    curves = []
    for number, key in enumerate(words.primary_metrics(results.findings)):
        rows = [f for f in results.findings if (f.benchmark, f.metric) == key and f.difference is not None]
        if not rows:
            continue
        changes = "; ".join(_change_text(row) for row in rows)
        title = f"{rows[0].label}, {rows[0].benchmark}"
        better = _better(rows[0].higher_is_better)
        caption = f"{better[:1].upper()}{better[1:]}. Difference to {words.name(results.baseline)}." if better else ""
        alt = f"Differences to {words.name(results.baseline)} in {title}: {changes}."
        curves.append(Curve(title, drawings.forest(rows, results.baseline, f"forest-{number}"), caption, alt))
    return curves


def _fronts(results: StudyResults, places: Mapping[str, int]) -> list[Curve]:
    curves = []
    for number, plot in enumerate(results.tradeoffs):
        sentence = words.front_sentence(plot)
        title = f"{plot.hallucination.label} ({plot.hallucination.benchmark}) against {plot.capability.label}"
        alt = f"{title}, each arm a point. {sentence}"
        curves.append(Curve(title, drawings.scatter(plot, places, f"front-{number}"), sentence, alt))
    return curves


def _effect_lines(results: StudyResults) -> list[EffectLine]:
    """The primary metrics of every effect, with a common scale per metric."""
    named = words.primary_metrics(results.findings)
    shown = [effect for effect in results.effects if (effect.benchmark, effect.metric) in named]
    reach: dict[tuple[str, str], float] = {}
    for effect in shown:
        key = (effect.benchmark, effect.metric)
        reach[key] = max([reach.get(key, 0.0), *map(abs, effect.difference.ci95 or ())])
    return [EffectLine(effect, reach[effect.benchmark, effect.metric]) for effect in shown]


def _pair_numbers(sets: Sequence[PairSetSummary]) -> list[PairNumbers]:
    rows = [
        PairNumbers("mean words of chosen answers", [found.chosen_words for found in sets]),
        PairNumbers("mean words of rejected answers", [found.rejected_words for found in sets]),
        PairNumbers("share of pairs whose chosen answer is longer", [found.chosen_longer for found in sets]),
    ]
    for prefix, mappings in (
        ("", [found.counts for found in sets]),
        ("dropped: ", [found.dropped for found in sets]),
        ("", [found.numbers for found in sets]),
    ):
        for key in dict.fromkeys(key for mapping in mappings for key in mapping):
            rows.append(PairNumbers(f"{prefix}{key.replace('_', ' ')}", [mapping.get(key) for mapping in mappings]))
    return [row for row in rows if any(value is not None for value in row.values)]


def _pair_outcome(results: StudyResults) -> list[list[str]]:
    """For each set of pairs, the results of its arms in the first primary metric."""
    key = next(iter(words.primary_metrics(results.findings)), None)
    found = {f.arm: f for f in results.findings if (f.benchmark, f.metric) == key}
    return [
        [f"{arm}: {_change_text(found[arm], named=False)}" for arm in pairs.arms if arm in found]
        for pairs in results.pair_sets
    ]


def _shown_pairs(folders: Sequence[PairFolder], picture: Any) -> list[tuple[str, list[PairView]]]:
    each = max(1, min(PAIRS_EACH, PAIRS_IN_ALL // max(1, len(folders))))
    shown = folders[:PAIRS_IN_ALL]
    return [(found.name, pair_views(found.pairs, found.folder, each, picture)) for found in shown if found.pairs]


def _job_row(evidence: Evidence, key: str) -> StudyPage:
    piece, entry = evidence.plan.jobs[key], evidence.entries.get(key)
    state = "not begun" if entry is None else entry.state
    note = "" if entry is None else entry.note.strip().rpartition("\n")[2]
    return StudyPage(piece.kind, piece.label, key, state, entry, note)


def _change_text(found: ArmFinding, *, named: bool = True) -> str:
    who = f"{words.name(found.arm)} " if named else ""
    if found.difference is None:
        return f"{who}is what others are compared with"
    change = difference_text(found.difference.value, found.unit)
    return f"{who}{change} ({interval_text(found.difference.ci95, found.unit, signed=True)}, {found.verdict})"


def _better(higher_is_better: bool | None) -> str:
    return "" if higher_is_better is None else "more is better" if higher_is_better else "less is better"
