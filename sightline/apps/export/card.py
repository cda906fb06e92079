"""The card of an exported model: data, settings, results with intervals, and limits, from the stages' records.

Every statement comes from a manifest or an estimate; the card states what was not measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml
from pydantic import ValidationError

from sightline.apps.export.check import LogpDistance
from sightline.apps.export.config import ExportModelConfig
from sightline.errors import InputError
from sightline.evals.directory import read_evaluation
from sightline.records.manifest import MANIFEST, Manifest, read_manifest
from sightline.records.store import atomic_write, read_json
from sightline.report.comparison import Results
from sightline.report.formatting import difference_text, interval_text, value_text
from sightline.report.page import RESULTS
from sightline.report.rendering import markdown_text

CARD = "README.md"


class CardLine(NamedTuple):
    """A benchmark metric with its interval."""

    benchmark: str
    metric: str
    value: str
    interval: str
    n: int
    unscored: int


class Change(NamedTuple):
    """A difference from the base model, taken from a report."""

    benchmark: str
    metric: str
    difference: str
    interval: str
    verdict: str


@dataclass(frozen=True)
class Origins:
    """The records that the card quotes."""

    model: str
    adapter: str
    train: Manifest | None
    pairs: Manifest | None
    results: tuple[CardLine, ...]
    changes: tuple[Change, ...]
    remarks: tuple[str, ...]


def read_origins(
    model: Path,
    adapter: Path | None,
    train: Path | None,
    pairs: Path | None,
    evaluations: Sequence[Path],
    report: Path | None,
) -> Origins:
    """Read the records that the card quotes; the training directory around the adapter is found automatically.

    Raises:
        InputError: a directory is not of the kind its option needs.
    """
    if train is None and adapter is not None and (adapter.parent / MANIFEST).is_file():
        train = adapter.parent
    results, remarks = list[CardLine](), list[str]()
    for place in evaluations:
        for name, found in read_evaluation(place).items():
            remarks += [f"{name}: {remark}" for remark in found.remarks]
            for metric, estimate in found.estimates.items():
                spec = found.metrics[metric]
                interval = interval_text(estimate.ci95, spec.unit, signed=False)
                value = value_text(estimate.value, spec.unit)
                results.append(CardLine(name, spec.label, value, interval, estimate.n, estimate.unscored))
    return Origins(
        model=model.resolve().name,
        adapter="" if adapter is None else adapter.resolve().name,
        train=None if train is None else _read_stage_manifest(train, "train", "--train"),
        pairs=None if pairs is None else _read_stage_manifest(pairs, "pairs", "--pairs"),
        results=tuple(results),
        changes=() if report is None else _changes(report),
        remarks=tuple(dict.fromkeys(remarks)),
    )


def write_card(
    path: Path,
    config: ExportModelConfig,
    origins: Origins,
    manifest: Manifest,
    reloaded: LogpDistance,
    changed: LogpDistance,
    size: int,
) -> None:
    """Write the card in Markdown, with front matter for model hubs."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sightline.apps.export", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": markdown_text, "settings": _settings}
    text = environment.get_template("card.md.jinja").render(
        name=config.name or path.parent.resolve().name,
        config=config,
        origins=origins,
        manifest=manifest,
        reloaded=reloaded,
        changed=changed,
        megabytes=size / 2**20,
        front=yaml.safe_dump(_front(config), sort_keys=False),
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text.strip() + "\n", encoding="utf-8")


def _front(config: ExportModelConfig) -> dict[str, Any]:
    tags = ["vision-language", "preference-alignment", "sightline"]
    front = {"license": config.license, "library_name": "transformers", "pipeline_tag": "image-text-to-text"}
    return {**front, "tags": tags}


def _settings(settings: dict[str, Any]) -> str:
    """Settings as indented YAML: a code block that no content can close."""
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=False)
    return "".join(f"    {line}\n" for line in text.splitlines())


def _read_stage_manifest(directory: Path, stage: str, option: str) -> Manifest:
    found = read_manifest(directory)
    if not found.stage.startswith(stage):
        raise InputError(f"{option} {directory} is a directory of '{found.stage}'; pass one of '{stage}'")
    return found


def _changes(report: Path) -> tuple[Change, ...]:
    path = report / RESULTS
    try:
        results = Results.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(f"{path} is not a result of `sightline report`; pass the directory of one") from error
    return tuple(
        Change(
            benchmark.name,
            metric.label,
            difference_text(metric.difference.value, metric.unit),
            interval_text(metric.difference.ci95, metric.unit, signed=True),
            metric.verdict,
        )
        for benchmark in results.benchmarks.values()
        for metric in benchmark.metrics.values()
        if metric.primary
    )
