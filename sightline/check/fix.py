"""A cleaned copy of a dataset, as a stage: the rows that no finding removes, and the list of those removed.

`findings.jsonl` of a check decides. Unusual images (EXIF rotation, CMYK, animated) stay as they are: opening them
corrects them.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sightline.check.findings import CheckFinding, RemovedRow
from sightline.check.row_reader import RawRow, RowImage, read_raw
from sightline.check.run import CheckPlan
from sightline.data.images import adopt_image, keep_embedded
from sightline.data.preference_dataset import PAIRS, write_preference_dataset
from sightline.data.terminal import Progress
from sightline.errors import InputError
from sightline.records import Manifest, Pair, Stage, read_rows, write_rows

REMOVED = "removed.jsonl"


def claim_fix(plan: CheckPlan, out: Path) -> Stage:
    """Claim the copy's directory before the long work.

    Raises:
        InputError: it belongs to another run.
    """
    return Stage.open(out, "check fix", plan.request(), plan.inputs(), plan.seed)


def fix_dataset(plan: CheckPlan, findings: Path, stage: Stage, progress: Progress) -> Manifest:
    """Write the remaining rows to the stage's directory, and `removed.jsonl` with the first reason of each removed row.

    Raises:
        InputError: no row is left.
    """
    if stage.done:
        return stage.manifest
    out = stage.directory
    reasons: Counter[str] = Counter()
    removed: set[int] = set()
    write_rows(out / REMOVED, _removed_rows(findings, removed, reasons))
    read = 0

    def kept() -> Iterator[Pair]:
        nonlocal read
        for raw in read_raw(plan.dataset):
            read = raw.number
            if raw.pair is not None and raw.number not in removed:
                images = tuple(_copy_image(raw, image, plan.dataset, out) for image in raw.images)
                yield raw.pair.model_copy(update={"images": images})
                progress(read - len(removed), read)

    if not write_rows(out / PAIRS, kept()):
        raise InputError(f"{plan.dataset}: no row is left (removed: {dict(reasons)}); repair some rows first")
    count = write_preference_dataset(out)
    return stage.finish(counts={"rows": read, "pairs": count}, dropped=dict(reasons))


def _removed_rows(findings: Path, removed: set[int], reasons: Counter[str]) -> Iterator[RemovedRow]:
    """Yield each removed row once, with the first finding that removes it; fill `removed` and `reasons`."""
    for finding in read_rows(findings, CheckFinding):
        if finding.removes and finding.row not in removed:
            removed.add(finding.row)
            reasons[finding.check] += 1
            yield RemovedRow(row=finding.row, id=finding.id, check=finding.check, reason=finding.reason)


def _copy_image(raw: RawRow, image: RowImage, source: Path, out: Path) -> str:
    """Copy an image to `out` and return its name there."""
    if image.data is None:
        return adopt_image(source, image.name, out, raw.where)
    return keep_embedded(image.data, image.name, out)
