"""The page: what the templates show, in order, and the filters they write it with. HTML and Markdown share it all.

Everything that a model or a file said is escaped: autoescape is on for both, and only `plots` and the two marking
filters below make markup. Layout and wording are in `templates/`.
"""

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple

import jinja2
import yaml
from markupsafe import Markup, escape

from sightline.study.report import formatting
from sightline.study.report.curves import Curve, length_curve, training_curves, training_sentences
from sightline.study.report.gallery import answer_galleries, pair_views
from sightline.study.report.marking import Segment
from sightline.study.report.material import Material, Source
from sightline.study.report.results import BenchmarkComparison, MetricResult, Results

_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]|~#])")


class Line(NamedTuple):
    """One row of a table: a metric of one benchmark; `scale` is the difference at the edge of its drawn interval."""

    benchmark: BenchmarkComparison
    name: str
    metric: MetricResult
    scale: float


class Family(NamedTuple):
    """A benchmark and its counter-prior twin: each metric's lines stand together. `remarks` say how it was scored."""

    name: str
    lines: list[Line]
    remarks: list[str]


class StageView(NamedTuple):
    """A directory that the report read, with the settings it was made with, as YAML."""

    source: Source
    settings: str


def render_html(results: Results, material: Material, resamples: int, seed: int) -> str:
    """The self-contained page."""
    return _environment().get_template("report.html.jinja").render(_context(results, material, resamples, seed))


def render_markdown(results: Results, material: Material, resamples: int, seed: int) -> str:
    """The same in Markdown, without pictures and plots."""
    text = _environment().get_template("report.md.jinja").render(_context(results, material, resamples, seed))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


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


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sightline.study.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "value": formatting.value_text,
        "difference": formatting.difference_text,
        "interval": formatting.interval_text,
        "p": formatting.p_text,
        "effect": formatting.effect_text,
        "marked": html_segments,
        "plain": markdown_text,
        "bold": markdown_segments,
        "place": place,
        "svg": Markup,
    }
    return environment


def place(difference: float, scale: float) -> str:
    """Where a difference lies in a drawing from -scale to +scale, in percent of its width less a margin for the dot."""
    share = max(-1.0, min(1.0, difference / scale)) if scale > 0 else 0.0
    return f"{50 + 47 * share:.2f}%"


def html_segments(segments: Iterable[Segment], kind: str) -> Markup:
    """Segments with the marked ones in <mark class="kind">."""
    parts = (
        Markup('<mark class="{}">{}</mark>').format(kind, segment.text) if segment.marked else escape(segment.text)
        for segment in segments
    )
    return Markup("").join(parts)


def markdown_text(text: str) -> Markup:
    """Text on one line in which neither Markdown nor HTML means anything."""
    return Markup(_MARKDOWN_SPECIAL.sub(r"\\\1", str(escape(" ".join(text.split())))))


def markdown_segments(segments: Iterable[Segment]) -> Markup:
    """Segments with the marked ones in bold; as HTML, since ** fails beside punctuation."""
    parts = []
    for text, marked in segments:
        if not marked:
            # Spaces around are kept, since `markdown_text` would join the words.
            lead, trail = " " * text[:1].isspace(), " " * text[-1:].isspace()
            parts.append(Markup(lead) + markdown_text(text) + (trail if text.strip() else ""))
        else:
            parts.append(Markup("<b>{}</b>").format(markdown_text(text)))
    return Markup("").join(parts)


def _overview(results: Results) -> list[Line]:
    lines = [(b, name, m) for b in results.benchmarks.values() for name, m in b.metrics.items() if m.primary]
    scale = _scale(metric for _, _, metric in lines)
    return [Line(*line, scale) for line in lines]


def _families(results: Results) -> list[Family]:
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
            lines += [Line(b, metric, m, shares if m.unit == "share" else numbers) for b, m in rows]
        remarks = [(b.name, remark) for b in twins for remark in b.remarks]
        families.append(Family(name, lines, [r if r.startswith(of) else f"{of}, {r}" for of, r in remarks]))
    return families


def _first_place(results: Results, family: str) -> int:
    return next(place for place, b in enumerate(results.benchmarks.values()) if b.family == family)


def _scale(metrics: Iterable[MetricResult]) -> float:
    """The largest end of an interval, so that all of them fit."""
    ends = [abs(end) for metric in metrics for end in metric.difference.ci95 or ()]
    return max(ends, default=0.0)


def _stage_view(source: Source) -> StageView:
    config = source.manifest.config if source.manifest else {}
    return StageView(source, yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "")
