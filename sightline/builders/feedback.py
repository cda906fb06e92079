"""Pairs from feedback: thumbs and corrections on a served model's answers, with counts of what was dropped and why.

A correction is chosen over the answer that it corrects; an answer with thumbs up over one with thumbs down to the same
prompt about the same images. Neither people nor models are consulted again; contradictory feedback is dropped.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from sightline.builders.build import dropped_reason
from sightline.config import Config
from sightline.data.preference_dataset import PAIRS, write_preference_dataset
from sightline.data.request_log import FEEDBACK, PICTURES, log_file, log_numbers, picture_file, read_feedback, read_log
from sightline.data.texts import changed_spans
from sightline.errors import InputError
from sightline.records import Pair, write_rows
from sightline.records.hashing import hash_file, hash_json
from sightline.records.manifest import Manifest, Stage
from sightline.records.ratings import LoggedRequest
from sightline.records.store import atomic_write

BUILDER = "feedback"
REMEDY = "serve with --set keep_images=true and redact=nothing, and gather more feedback"


class FeedbackConfig(Config):
    """No settings; the manifest records the version of the rules."""

    rules: int = Field(default=1, description="version of the rules; recorded, not to be set")


@dataclass
class _Feedback:
    """All feedback on one answer."""

    thumbs: set[str] = field(default_factory=set)
    corrections: dict[str, None] = field(default_factory=dict)

    def contradiction(self) -> str:
        """Return why the feedback contradicts itself, or an empty string."""
        if len(self.thumbs) > 1:
            return "thumbs of one answer that contradict each other"
        if len(self.corrections) > 1:
            return "several corrections of one answer"
        if self.corrections and self.thumbs == {"up"}:
            return "thumb up and correction of one answer"
        return ""


@dataclass
class _Group:
    """The answers to one prompt about the same images: row by answer, liked, disliked or corrected."""

    up: dict[str, LoggedRequest] = field(default_factory=dict)
    down: dict[str, LoggedRequest] = field(default_factory=dict)
    corrected: list[tuple[LoggedRequest, str]] = field(default_factory=list)


def pairs_from_feedback(logs: Sequence[Path], out: Path) -> Manifest:
    """Write the pairs that feedback on logged answers gives to `out`, with their images.

    Raises:
        InputError: a log is missing, a row is invalid, or no pair is left.
    """
    if not logs:
        raise InputError("name at least one log of a served model")
    dropped = Counter[str]()
    rows = [(log, row, feedback) for log in logs for row, feedback in _rows(log, dropped)]
    groups = _group_by_prompt(rows, dropped)
    pairs = sorted((pair for group in groups.values() for pair in _pairs(group, dropped)), key=lambda pair: pair.id)
    if not pairs:
        raise InputError(f"{logs[0]}: no pair is left (dropped: {dict(dropped)}); {REMEDY}")
    logs_by_row = {row.id: log for log, row, _ in rows}
    inputs = {f"log_{number}_{path.name}": path for number, log in enumerate(logs) for path in _files(log)}
    stage = Stage.open(out, "pairs from-feedback", FeedbackConfig(), inputs)
    if stage.done:
        return stage.manifest
    for pair in pairs:
        for name in pair.images:
            _copy_image(picture_file(logs_by_row[pair.provenance["request"]], Path(name).name), out / name)
    write_rows(out / PAIRS, pairs)
    write_preference_dataset(out)
    return stage.finish(counts={"answers": len(rows), "pairs": len(pairs)}, dropped=dict(dropped))


def _files(log: Path) -> list[Path]:
    return [log_file(log, number) for number in log_numbers(log)] + [log / FEEDBACK]


def _rows(log: Path, dropped: Counter[str]) -> Iterator[tuple[LoggedRequest, _Feedback]]:
    """Yield the rows of a log that have feedback; memory holds the feedback."""
    by_row: dict[str, _Feedback] = {}
    for _, entry in read_feedback(log):
        feedback = by_row.setdefault(entry.id, _Feedback())
        if entry.thumb is not None:
            feedback.thumbs.add(entry.thumb)
        if entry.correction is not None:
            feedback.corrections[entry.correction.strip()] = None
    for row, _ in read_log(log):
        if row.id not in by_row:
            continue
        feedback = by_row.pop(row.id)
        if reason := feedback.contradiction() or _unusable_reason(row, log):
            dropped[reason] += 1
        else:
            yield row, feedback
    if by_row:
        dropped["feedback on a call that is not in the log"] += len(by_row)


def _unusable_reason(row: LoggedRequest, log: Path) -> str:
    """Return why a row gives no pair, or an empty string."""
    if row.prompt is None or row.answer is None or row.history is None:
        return "redacted: the log has no text"
    if row.status != 200 or not row.answer.strip() or not row.prompt.strip():
        return "no answer or no prompt"
    for picture in row.images:
        path = picture_file(log, picture.sha256)
        if not path.is_file() or hash_file(path) != picture.sha256:
            return "the picture was not kept"
    return ""


def _group_by_prompt(rows: Sequence[tuple[Path, LoggedRequest, _Feedback]], dropped: Counter[str]) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for _, row, feedback in rows:
        pictures = [picture.sha256 for picture in row.images]
        history = [turn.model_dump() for turn in row.history or ()]
        group = groups.setdefault(hash_json([pictures, history, row.prompt]), _Group())
        answer = (row.answer or "").strip()
        for correction in feedback.corrections:
            group.corrected.append((row, correction))
        if feedback.thumbs and not feedback.corrections:
            (group.up if feedback.thumbs == {"up"} else group.down).setdefault(answer, row)
    for group in groups.values():
        for answer in group.up.keys() & group.down.keys():
            dropped["one answer liked and disliked to the same prompt"] += 1
            del group.up[answer], group.down[answer]
    return groups


def _pairs(group: _Group, dropped: Counter[str]) -> Iterator[Pair]:
    """Yield each disliked answer once: against its correction, or against a liked answer."""
    disliked = group.down.keys() | {(row.answer or "").strip() for row, _ in group.corrected}
    seen: set[tuple[str, str]] = set()
    for row, correction in group.corrected:
        if correction in disliked:
            dropped["a correction that was itself disliked"] += 1
            continue
        if ((row.answer or "").strip(), correction) in seen:
            dropped["the same correction again"] += 1
            continue
        seen.add(((row.answer or "").strip(), correction))
        pair = _pair(row, correction, "correction")
        if reason := dropped_reason(pair):
            dropped[reason] += 1
        else:
            yield pair
    liked = sorted(group.up)
    for number, (_, row) in enumerate(sorted(group.down.items())):
        if not liked:
            dropped["disliked, without a correction or a liked answer"] += 1
        else:
            yield _pair(row, liked[number % len(liked)], "thumbs")
    if liked and not group.down:
        dropped["liked, without a disliked answer"] += len(liked)


def _pair(row: LoggedRequest, chosen: str, kind: str) -> Pair:
    rejected = (row.answer or "").strip()
    # Spans are for corrections only: two independent answers differ everywhere.
    spans = changed_spans(chosen, rejected) if kind == "correction" else ((), ())
    images = tuple(f"{PICTURES}/{picture.sha256[:32]}" for picture in row.images)
    return Pair(
        id=f"{row.id}/{BUILDER}-{kind}",
        images=images,
        history=row.history or (),
        prompt=row.prompt or "",
        chosen=chosen,
        rejected=rejected,
        chosen_spans=spans[0],
        rejected_spans=spans[1],
        builder=BUILDER,
        cluster=row.images[0].sha256[:32] if row.images else hash_json(row.prompt)[:32],
        provenance={"request": row.id, "kind": kind, "model": row.model, "time": row.time},
    )


def _copy_image(source: Path, target: Path) -> None:
    """Copy an image into the dataset atomically."""
    if not target.exists():
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)
