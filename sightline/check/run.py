"""The check as a stage: rows -> findings.jsonl and check.json, in one pass, then comparisons, then measures.

`findings` defines the checks; `fix` writes a cleaned copy. Torch is imported only if a model is named.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from sightline.check.columns import Likeness, as_int64
from sightline.check.findings import CHECKS, NEVER, OF_BENCHMARKS, OF_MODEL, CheckConfig, CheckLine, Report
from sightline.check.findings_db import FindingsDb
from sightline.check.image_facts import Limits, open_image_pool
from sightline.check.overlap import BenchmarkIndex, BenchmarkSource, find_overlap, index_benchmark
from sightline.check.repeats import find_repeated_ids, find_repeated_images, find_repeated_rows, group_similar_images
from sightline.check.row_reader import count_rows, read_raw
from sightline.check.scan import DatasetScan, DrawnNumbers
from sightline.check.shortcuts import measure_shortcuts
from sightline.config import Config
from sightline.data.terminal import Progress
from sightline.errors import InputError
from sightline.models.spec import ModelSpec
from sightline.records import Stage, read_json, write_json, write_rows
from sightline.records.manifest import MANIFEST, StageInput

if TYPE_CHECKING:
    from sightline.models.vlm import VLM

REPORT, FINDINGS = "check.json", "findings.jsonl"
_BLOCK = 256  # rows scanned together
#: dHash confirms pHash: unrelated images differ in about 32 bits, a resized or re-encoded image in about 5.
_CONFIRM = 12
Bar = Callable[[str], Progress]
Claim = Callable[[], object]


@dataclass(frozen=True)
class CheckPlan:
    """Inputs and settings of a check; the number of `workers` that open images changes only the speed."""

    dataset: Path
    config: CheckConfig
    seed: int = 0
    model: ModelSpec | None = None
    against: tuple[BenchmarkSource, ...] = ()
    workers: int = 1

    def inputs(self) -> dict[str, StageInput]:
        """Return the files and folders that decide the result."""
        places = {f"against_{n}": a.place for n, a in enumerate(self.against) if a.place is not None}
        return {"pairs": self.dataset, **places} | ({} if self.model is None else self.model.inputs())

    def request(self) -> "CheckRequest":
        """Return the settings that the manifest records."""
        return CheckRequest(against=tuple(against.name for against in self.against), config=self.config)


class CheckRequest(Config):
    """Settings that decide a check, besides its inputs."""

    against: tuple[str, ...] = Field(description="benchmarks or directories that the pairs are compared with")
    config: CheckConfig = Field(description="the settings of the check")


def check_dataset(plan: CheckPlan, out: Path, bar: Bar, claim: Claim = lambda: None) -> Report:
    """Check a dataset into the directory `out`; a finished check is read instead of repeated.

    `bar` makes a progress bar with a label. `claim` is called once the inputs are known to be good, before the long
    work.

    Raises:
        InputError: the stage, the model or a benchmark is invalid, or the directory has no pairs or no rows.
    """
    stages: list[Stage] = []

    def claim_both() -> None:
        claim()
        if not stages:
            stages.append(Stage.open(out, "check", plan.request(), plan.inputs(), plan.seed))

    if (out / MANIFEST).exists():
        stages.append(Stage.open(out, "check", plan.request(), plan.inputs(), plan.seed))
        if stages[0].done:
            claim()
            return Report.model_validate(read_json(out / REPORT))
    report = check_into(plan, out, bar, claim_both)
    stages[0].finish(counts={"rows": report.rows, "readable": report.readable, "removable": report.removable})
    return report


def check_into(plan: CheckPlan, out: Path, bar: Bar, claim: Claim = lambda: None) -> Report:
    """Do the same without a manifest, for a temporary directory.

    Raises:
        InputError: as `check_dataset`.
    """
    total = count_rows(plan.dataset)
    if not total:
        raise InputError(f"{plan.dataset} holds no rows; build pairs first")
    vlm = _open(plan.model)
    with open_image_pool(Limits(plan.config.min_side, plan.config.max_pixels), plan.workers) as inspect_all:
        benchmarks = [index_benchmark(source, inspect_all) for source in plan.against]
        claim()
        with _open_db(out) as (db, folder):
            tolerated = frozenset({"image-remote"} if plan.config.allow_remote else ())
            drawn = _draw(total, plan)
            scan = DatasetScan(plan.dataset, db, folder, inspect_all, drawn, _fits(vlm), tolerated)
            progress, rows = bar("rows"), read_raw(plan.dataset)
            while block := list(islice(rows, _BLOCK)):
                scan.add(block)
                progress(scan.total, max(total, scan.total))
            if not scan.total:
                raise InputError(f"{plan.dataset} holds no rows; build pairs first")
            _compare(scan, benchmarks, plan.config)
            report = _report(scan, benchmarks, plan, vlm, bar)
            write_rows(out / FINDINGS, db.findings())
    write_json(out / REPORT, report)
    return report


def _report(
    scan: DatasetScan, benchmarks: list[BenchmarkIndex], plan: CheckPlan, vlm: "VLM | None", bar: Bar
) -> Report:
    lines, skipped = _lines(scan, benchmarks, plan, has_model=vlm is not None)
    measured, missed = _measure(scan, plan, vlm, bar)
    opens = as_int64(scan.images.opens) > 0
    return Report(
        rows=scan.total,
        readable=len(scan.rows),
        images=len(scan.images),
        distinct_images=len(np.unique(as_int64(scan.images.digest)[opens])),
        removable=scan.db.removable(),
        lines=(*lines, *measured),
        skipped=skipped | missed,
        numbers={f"{i.name}: unreadable pictures": float(i.unreadable) for i in benchmarks},
    )


@contextmanager
def _open_db(out: Path) -> Iterator[tuple[FindingsDb, Path]]:
    """Open the database in a folder beside the results, and yield both; both are deleted afterwards."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".scratch-") as name:
        db = FindingsDb(Path(name) / "check.sqlite")
        try:
            yield db, Path(name)
        finally:
            db.close()


def _draw(total: int, plan: CheckPlan) -> DrawnNumbers:
    """Draw rows for the measures at random; the model's rows are among the texts' rows where possible."""
    order = np.random.default_rng([plan.seed, 0]).permutation(total) + 1
    prior = plan.config.prior_sample if plan.model is not None else 0
    return DrawnNumbers(frozenset(order[: plan.config.sample].tolist()), frozenset(order[:prior].tolist()))


def _compare(scan: DatasetScan, benchmarks: list[BenchmarkIndex], config: CheckConfig) -> None:
    """Find what concerns several rows, and overlaps with benchmarks."""
    db, rows, images = scan.db, scan.rows, scan.images
    pictures = Likeness(config.image_distance, _CONFIRM)
    alike = group_similar_images(images, pictures)
    db.add_findings(find_repeated_ids(rows))
    for found in benchmarks:
        db.add_findings(find_overlap(rows, images, found, pictures))
    db.add_findings(find_repeated_rows(rows, images, alike, Likeness(config.text_distance, config.text_distance)))
    db.add_findings(find_repeated_images(rows, images, alike))
    db.finish()


def _lines(
    scan: DatasetScan, benchmarks: list[BenchmarkIndex], plan: CheckPlan, *, has_model: bool
) -> tuple[list[CheckLine], dict[str, str]]:
    """Return a line for each check that ran, and the reasons why others did not."""
    lines, skipped = [], {}
    for name, check in CHECKS.items():
        if name in OF_MODEL and not has_model:
            skipped[check.title] = "name a model with --model"
            continue
        if name in OF_BENCHMARKS and not benchmarks:
            skipped[check.title] = "name benchmarks with --against"
        if name == "image-remote" and plan.config.allow_remote:
            check = replace(check, bad=NEVER)
        for of in [found.name for found in benchmarks] if name in OF_BENCHMARKS else [""]:
            count = scan.db.count(name, of)
            share = count / scan.total
            verdict, title = check.verdict(share), check.title.replace("the benchmark", of) if of else check.title
            examples = scan.db.examples(name, of)
            line = CheckLine(
                check=name,
                of=of,
                title=title,
                verdict=verdict,
                rows=count,
                share=share,
                n=scan.total,
                examples=examples,
            )
            lines.append(line)
    return lines, skipped


def _measure(scan: DatasetScan, plan: CheckPlan, vlm: "VLM | None", bar: Bar) -> tuple[list[CheckLine], dict[str, str]]:
    """Return the measures on the drawn pairs."""
    if vlm is None:
        lines, skipped = measure_shortcuts(scan.sample, plan.config, plan.seed)
        return lines, skipped | {"language prior": "name a model with --model"}
    from sightline.check.language_prior import measure_prior

    def tokens(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in vlm.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    lines, skipped = measure_shortcuts(scan.sample, plan.config, plan.seed, tokens)
    more, missed = measure_prior(vlm, scan.sample.prior, plan.config, plan.seed, bar("language prior"))
    return lines + more, skipped | missed


def _open(model: ModelSpec | None) -> "VLM | None":
    if model is None:
        return None
    from sightline.models.opening import open_model

    return open_model(model)


def _fits(vlm: "VLM | None") -> "Callable[..., tuple[str, str] | None] | None":
    if vlm is None:
        return None
    from sightline.check.language_prior import FitCheck

    return FitCheck(vlm).problem
