"""A cleaned copy of a dataset: the rows that no finding removes, and the list of those that went, as a stage.

Nothing is decided here; `findings.jsonl` of a check says which rows go. Images that only look odd (turned by EXIF,
CMYK, animated) stay as they are, since they are put right whenever they are opened.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sightline.check.findings import CheckFinding, Removed
from sightline.check.row_reader import RawRow, ReadRow, read_raw
from sightline.check.run import CheckPlan
from sightline.data.images import adopt_image, keep_embedded
from sightline.data.preference_dataset import PAIRS, write_preference_dataset
from sightline.data.terminal import Progress
from sightline.errors import InputError
from sightline.records import Manifest, Pair, Stage, read_rows, write_rows

REMOVED = "removed.jsonl"


def begin_fix(plan: CheckPlan, out: Path) -> Stage:
    """Claim the directory of the copy, before the long work.

    Raises:
        InputError: it belongs to another run.
    """
    return Stage.open(out, "check fix", plan.asked(), plan.inputs(), plan.seed)


def fix_dataset(plan: CheckPlan, findings: Path, stage: Stage, progress: Progress) -> Manifest:
    """Write what is left to the stage's directory, and `removed.jsonl` with the first reason of each row that went.

    Raises:
        InputError: nothing is left.
    """
    if stage.done:
        return stage.manifest
    out = stage.directory
    reasons: Counter[str] = Counter()
    gone: set[int] = set()
    write_rows(out / REMOVED, _removed(findings, gone, reasons))
    read = 0

    def kept() -> Iterator[Pair]:
        nonlocal read
        for raw in read_raw(plan.dataset):
            read = raw.number
            if raw.pair is not None and raw.number not in gone:
                images = tuple(_brought(raw, shown, plan.dataset, out) for shown in raw.images)
                yield raw.pair.model_copy(update={"images": images})
                progress(read - len(gone), read)

    if not write_rows(out / PAIRS, kept()):
        raise InputError(f"{plan.dataset}: no row is left, removed were {dict(reasons)}; mend some of them first")
    count = write_preference_dataset(out)
    return stage.finish(counts={"rows": read, "pairs": count}, dropped=dict(reasons))


def _removed(findings: Path, gone: set[int], reasons: Counter[str]) -> Iterator[Removed]:
    """A row once, with the first finding that removes it; `gone` and `reasons` are filled on the way."""
    for finding in read_rows(findings, CheckFinding):
        if finding.removes and finding.row not in gone:
            gone.add(finding.row)
            reasons[finding.check] += 1
            yield Removed(row=finding.row, id=finding.id, check=finding.check, reason=finding.reason)


def _brought(raw: RawRow, shown: ReadRow, source: Path, out: Path) -> str:
    """The name, in the copy, of an image that is brought there."""
    if shown.data is None:
        return adopt_image(source, shown.name, out, raw.where)
    return keep_embedded(shown.data, shown.name, out)
