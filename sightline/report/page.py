"""The contents of the report on one aligned model, shared by HTML and Markdown.

Nothing is computed here. `rendering` renders the templates, which hold layout and wording.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sightline.errors import InputError
from sightline.evals.statistics import RESAMPLES
from sightline.records.store import atomic_write, write_json
from sightline.report.comparison import BenchmarkComparison, MetricResult, Results, compare_evaluations
from sightline.report.curves import Curve, length_curve, training_curves, training_sentences
from sightline.report.gallery import answer_galleries, pair_views
from sightline.report.material import Material, ReportSource, read_material
from sightline.report.rendering import render


class MetricLine(NamedTuple):
    """One row of a table: a metric of one benchmark; `scale` is the difference at the edge of its drawn interval."""

    benchmark: BenchmarkComparison
    name: str
    metric: MetricResult
    scale: float


class MetricFamily(NamedTuple):
    """A benchmark and its counter-prior twin, with the lines grouped by metric; `remarks` say how it was scored."""

    name: str
    lines: list[MetricLine]
    remarks: list[str]


class StageView(NamedTuple):
    """An input directory of the report, with its settings as YAML."""

    source: ReportSource
    settings: str


def render_html(results: Results, material: Material, resamples: int, seed: int) -> str:
    """The self-contained page."""
    return render("report.html.jinja", _context(results, material, resamples, seed))


def render_markdown(results: Results, material: Material, resamples: int, seed: int) -> str:
    """The same in Markdown, without pictures and plots."""
    return render("report.md.jinja", _context(results, material, resamples, seed))


def _context(results: Results, material: Material, resamples: int, seed: int) -> dict[str, Any]:
    curves: list[Curve] = []
    if material.trainings:
        curves += training_curves(material.trainings)
    manifests = [source.manifest for source in material.sources if source.manifest]
    return {
        "results": results,
        "overview": _overview(results),
        "families": _families(results),
        "curves": curves,
        "length": length_curve(material.base, material.aligned),
        "training": training_sentences(material.trainings),
        "warnings": list(dict.fromkeys(line for manifest in manifests for line in manifest.warnings)),
        "pairs": pair_views(material.pairs, material.pairs_folder) if material.pairs_folder else [],
        "pair_count": len(material.pairs),
        "galleries": answer_galleries(material.base, material.aligned[0]),
        "stages": [_stage_view(source) for source in material.sources],
        "versions": {name: version for manifest in manifests for name, version in manifest.versions.items()},
        "resamples": resamples,
        "seed": seed,
    }


def _overview(results: Results) -> list[MetricLine]:
    lines = [(b, name, m) for b in results.benchmarks.values() for name, m in b.metrics.items() if m.primary]
    scale = _scale(metric for _, _, metric in lines)
    return [MetricLine(*line, scale) for line in lines]


def _families(results: Results) -> list[MetricFamily]:
    by_family = sorted(results.benchmarks.values(), key=lambda b: _first_place(results, b.family))
    families = []
    for name, members in groupby(by_family, key=lambda benchmark: benchmark.family):
        twins = sorted(members, key=lambda benchmark: benchmark.condition == "counter-prior")
        metrics = dict.fromkeys(metric for benchmark in twins for metric in benchmark.metrics)
        shares = _scale(m for b in twins for m in b.metrics.values() if m.unit == "share")
        lines = []
        for metric in metrics:
            rows = [(b, b.metrics[metric]) for b in twins if metric in b.metrics]
            numbers = _scale(m for _, m in rows)
            lines += [MetricLine(b, metric, m, shares if m.unit == "share" else numbers) for b, m in rows]
        remarks = [(b.name, remark) for b in twins for remark in b.remarks]
        families.append(MetricFamily(name, lines, [r if r.startswith(of) else f"{of}, {r}" for of, r in remarks]))
    return families


def _first_place(results: Results, family: str) -> int:
    return next(place for place, b in enumerate(results.benchmarks.values()) if b.family == family)


def _scale(metrics: Iterable[MetricResult]) -> float:
    """The largest end of an interval, so that all of them fit."""
    ends = [abs(end) for metric in metrics for end in metric.difference.ci95 or ()]
    return max(ends, default=0.0)


def _stage_view(source: ReportSource) -> StageView:
    config = source.manifest.config if source.manifest else {}
    return StageView(source, yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "")


HTML, MARKDOWN, RESULTS = "report.html", "report.md", "results.json"


def write_report(
    out: Path,
    *,
    base: Path,
    aligned: Sequence[Path],
    trainings: Sequence[Path] = (),
    pairs: Path | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Results:
    """Compare the base model with the aligned one (or several, one per training seed) and write the report to `out`.

    Trainings and pairs are optional. The same records give the same bytes.

    Raises:
        InputError: a directory is missing or of the wrong kind, or the evaluations cannot be compared.
    """
    if not aligned:
        raise InputError("no aligned model to report on; name its evaluation with --aligned.")
    material = read_material(base, aligned, trainings, pairs)
    results = compare_evaluations(material.base, material.aligned, resamples=resamples, seed=seed)
    html, markdown = (render(results, material, resamples, seed) for render in (render_html, render_markdown))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"output directory {out} cannot be created ({error.strerror}); choose another --out."
        ) from error
    write_json(out / RESULTS, results.model_dump(mode="json"))
    for name, text in ((HTML, html), (MARKDOWN, markdown)):
        with atomic_write(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return results
