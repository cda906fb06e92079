"""The check as a stage: rows -> findings.jsonl and check.json; one pass, then comparisons, then measures.

What can be found is in `findings`; `fix` makes a cleaned copy of what was found. Torch is imported where a model is
named, and nowhere else.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sightline.check.columns import Likeness, integers
from sightline.check.findings import (
    CHECKS,
    NEVER,
    OF_BENCHMARKS,
    OF_MODEL,
    CheckConfig,
    CheckLine,
    Report,
)
from sightline.check.findings_db import Scratch
from sightline.check.image_pool import opener
from sightline.check.overlap import Against, Index, find_overlap, index
from sightline.check.pictures import Limits
from sightline.check.repeats import like_images, repeated_ids, repeated_images, repeated_rows
from sightline.check.row_reader import count_rows, read_raw
from sightline.check.scan import DatasetScan, Drawn
from sightline.check.shortcuts import measure_giveaways
from sightline.config import Config
from sightline.data.terminal import Progress
from sightline.errors import InputError
from sightline.records import Stage, read_json, write_json, write_rows
from sightline.records.manifest import MANIFEST

if TYPE_CHECKING:
    from sightline.models.vlm import VLM

REPORT, FINDINGS = "check.json", "findings.jsonl"
_BLOCK = 256  # rows looked at together
#: dHash confirms what pHash finds: strangers differ in 32 bits, the same picture in another size or format in some 5.
_CONFIRM = 12
Bar = Callable[[str], Progress]
Claim = Callable[[], object]


def _nothing() -> None:
    """Where there is no directory to claim."""


@dataclass(frozen=True)
class CheckPlan:
    """What to check, and how; `workers` processes open images, which changes the speed and nothing else."""

    dataset: Path
    config: CheckConfig
    seed: int = 0
    model: Path | None = None
    against: tuple[Against, ...] = ()
    workers: int = 1

    def inputs(self) -> dict[str, Path]:
        """The files and folders that decide the result."""
        places = {f"against_{n}": a.place for n, a in enumerate(self.against) if a.place is not None}
        return {"pairs": self.dataset, **places} | ({} if self.model is None else {"model": self.model})

    def asked(self) -> "CheckRequest":
        """What a manifest says of it."""
        return CheckRequest(against=tuple(against.name for against in self.against), config=self.config)


class CheckRequest(Config):
    """What decides a check beside its inputs."""

    against: tuple[str, ...]
    config: CheckConfig


def check_dataset(plan: CheckPlan, out: Path, bar: Bar, claim: Claim = _nothing) -> Report:
    """Check a dataset into the directory `out`; one that is finished is read and not made again.

    `bar` makes a progress bar with a label. `claim` is called once inputs are known to be good, before the long work.

    Raises:
        InputError: what the stage, the model or a benchmark refuse; a directory without pairs, or without rows.
    """
    stages: list[Stage] = []

    def claim_both() -> None:
        claim()
        if not stages:
            stages.append(Stage.open(out, "check", plan.asked(), plan.inputs(), plan.seed))

    if (out / MANIFEST).exists():
        stages.append(Stage.open(out, "check", plan.asked(), plan.inputs(), plan.seed))
        if stages[0].done:
            claim()
            return Report.model_validate(read_json(out / REPORT))
    report = check_into(plan, out, bar, claim_both)
    stages[0].finish(counts={"rows": report.rows, "readable": report.readable, "removable": report.removable})
    return report


def check_into(plan: CheckPlan, out: Path, bar: Bar, claim: Claim = _nothing) -> Report:
    """The same without a manifest, for a directory that is thrown away.

    Raises:
        InputError: as `check_dataset`.
    """
    total = count_rows(plan.dataset)
    if not total:
        raise InputError(f"{plan.dataset} holds no rows; make pairs first")
    vlm = _open(plan.model)
    with opener(Limits(plan.config.min_side, plan.config.max_pixels), plan.workers) as look_all:
        indices = [index(against, look_all) for against in plan.against]
        claim()
        with _scratch(out) as (scratch, folder):
            tolerated = frozenset({"image-remote"} if plan.config.allow_remote else ())
            drawn = _draw(total, plan)
            made = DatasetScan(plan.dataset, scratch, folder, look_all, drawn, _fits(vlm), tolerated)
            told, rows = bar("rows"), read_raw(plan.dataset)
            while block := list(islice(rows, _BLOCK)):
                made.add(block)
                told(made.total, max(total, made.total))
            if not made.total:
                raise InputError(f"{plan.dataset} holds no rows; make pairs first")
            _compare(made, indices, plan.config)
            report = _report(made, indices, plan, vlm, bar)
            write_rows(out / FINDINGS, scratch.findings())
    write_json(out / REPORT, report)
    return report


def _report(made: DatasetScan, indices: list[Index], plan: CheckPlan, vlm: "VLM | None", bar: Bar) -> Report:
    lines, skipped = _lines(made, indices, plan, has_model=vlm is not None)
    measured, missed = _measure(made, plan, vlm, bar)
    opens = integers(made.images.opens) > 0
    return Report(
        rows=made.total,
        readable=len(made.rows),
        images=len(made.images),
        distinct_images=len(np.unique(integers(made.images.digest)[opens])),
        removable=made.scratch.removable(),
        lines=(*lines, *measured),
        skipped=skipped | missed,
        numbers={f"{i.name}: unreadable pictures": float(i.unreadable) for i in indices},
    )


@contextmanager
def _scratch(out: Path) -> Iterator[tuple[Scratch, Path]]:
    """The scratch file in a folder beside the results, and that folder; both are deleted."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".scratch-") as name:
        scratch = Scratch(Path(name) / "check.sqlite")
        try:
            yield scratch, Path(name)
        finally:
            scratch.close()


def _draw(total: int, plan: CheckPlan) -> Drawn:
    """Rows for the measures, drawn at random; those of the model are among those of the texts where they can be."""
    order = np.random.default_rng([plan.seed, 0]).permutation(total) + 1
    prior = plan.config.prior_sample if plan.model is not None else 0
    return Drawn(frozenset(order[: plan.config.sample].tolist()), frozenset(order[:prior].tolist()))


def _compare(made: DatasetScan, indices: list[Index], config: CheckConfig) -> None:
    """Find what concerns several rows, and what meets a benchmark."""
    scratch, rows, images = made.scratch, made.rows, made.images
    pictures = Likeness(config.image_distance, _CONFIRM)
    alike = like_images(images, pictures)
    scratch.add_findings(repeated_ids(rows))
    for found in indices:
        scratch.add_findings(find_overlap(rows, images, found, pictures))
    scratch.add_findings(repeated_rows(rows, images, alike, Likeness(config.text_distance, config.text_distance)))
    scratch.add_findings(repeated_images(rows, images, alike))
    scratch.finish()


def _lines(
    made: DatasetScan, indices: list[Index], plan: CheckPlan, *, has_model: bool
) -> tuple[list[CheckLine], dict[str, str]]:
    """A line for each check that was made, and why others were not."""
    lines, skipped = [], {}
    for name, check in CHECKS.items():
        if name in OF_MODEL and not has_model:
            skipped[check.title] = "name a model with --model"
            continue
        if name in OF_BENCHMARKS and not indices:
            skipped[check.title] = "name benchmarks with --against"
        if name == "image-remote" and plan.config.allow_remote:
            check = replace(check, bad=NEVER)
        for of in [found.name for found in indices] if name in OF_BENCHMARKS else [""]:
            count = made.scratch.count(name, of)
            share = count / made.total
            verdict, title = check.verdict(share), check.title.replace("the benchmark", of) if of else check.title
            examples = made.scratch.examples(name, of)
            line = CheckLine(
                check=name,
                of=of,
                title=title,
                verdict=verdict,
                rows=count,
                share=share,
                n=made.total,
                examples=examples,
            )
            lines.append(line)
    return lines, skipped


def _measure(made: DatasetScan, plan: CheckPlan, vlm: "VLM | None", bar: Bar) -> tuple[list[CheckLine], dict[str, str]]:
    """What is measured on the pairs that were drawn."""
    if vlm is None:
        lines, skipped = measure_giveaways(made.sample, plan.config, plan.seed)
        return lines, skipped | {"language prior": "name a model with --model"}
    from sightline.check.language_prior import measure_prior

    def tokens(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in vlm.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    lines, skipped = measure_giveaways(made.sample, plan.config, plan.seed, tokens)
    more, missed = measure_prior(vlm, made.sample.prior, plan.config, plan.seed, bar("language prior"))
    return lines + more, skipped | missed


def _open(model: Path | None) -> "VLM | None":
    if model is None:
        return None
    from sightline.models.loading import load_vlm

    return load_vlm(model)


def _fits(vlm: "VLM | None") -> "Callable[..., tuple[str, str] | None] | None":
    if vlm is None:
        return None
    from sightline.check.language_prior import Fitting

    return Fitting(vlm).problem
