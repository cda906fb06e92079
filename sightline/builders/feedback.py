"""Thumbs and corrections on a served model's answers -> the next round's pairs, with what was dropped and why.

A correction is chosen over the answer that it corrects; an answer with a thumb up over one with a thumb down to the
same prompt about the same pictures. Nobody is asked twice, and no model: what contradicts itself is dropped, counted.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
    """There is nothing to set; it is in the manifest that this version's rules were used."""

    rules: int = 1


@dataclass
class _Told:
    """All that was said of one call."""

    thumbs: set[str] = field(default_factory=set)
    corrections: dict[str, None] = field(default_factory=dict)

    def conflict(self) -> str:
        """Why it says nothing, or nothing."""
        if len(self.thumbs) > 1:
            return "thumbs of one answer that contradict each other"
        if len(self.corrections) > 1:
            return "several corrections of one answer"
        if self.corrections and self.thumbs == {"up"}:
            return "thumb up and correction of one answer"
        return ""


@dataclass
class _Group:
    """The answers to one prompt about the same pictures: row by answer, and who liked or corrected it."""

    up: dict[str, LoggedRequest] = field(default_factory=dict)
    down: dict[str, LoggedRequest] = field(default_factory=dict)
    corrected: list[tuple[LoggedRequest, str]] = field(default_factory=list)


def pairs_from_feedback(logs: Sequence[Path], out: Path) -> Manifest:
    """Write the pairs that feedback on logged answers gives to `out`, pictures included.

    Raises:
        InputError: no such log, a broken row, or no pair is left.
    """
    if not logs:
        raise InputError("name at least one log of a served model")
    dropped = Counter[str]()
    rows = [(log, row, told) for log in logs for row, told in _rows(log, dropped)]
    groups = _grouped(rows, dropped)
    pairs = sorted((pair for group in groups.values() for pair in _pairs(group, dropped)), key=lambda pair: pair.id)
    if not pairs:
        raise InputError(f"{logs[0]}: no pair is left, dropped were {dict(dropped)}; {REMEDY}.")
    places = {row.id: log for log, row, _ in rows}
    inputs = {f"log_{number}_{path.name}": path for number, log in enumerate(logs) for path in _files(log)}
    stage = Stage.open(out, "pairs from-feedback", FeedbackConfig(), inputs)
    if stage.done:
        return stage.manifest
    for pair in pairs:
        for name in pair.images:
            _bring(picture_file(places[pair.provenance["request"]], Path(name).name), out / name)
    write_rows(out / PAIRS, pairs)
    write_preference_dataset(out)
    return stage.finish(counts={"answers": len(rows), "pairs": len(pairs)}, dropped=dict(dropped))


def _files(log: Path) -> list[Path]:
    return [log_file(log, number) for number in log_numbers(log)] + [log / FEEDBACK]


def _rows(log: Path, dropped: Counter[str]) -> Iterator[tuple[LoggedRequest, _Told]]:
    """The rows of a log that somebody said something of; memory holds what was said."""
    told: dict[str, _Told] = {}
    for _, said in read_feedback(log):
        one = told.setdefault(said.id, _Told())
        if said.thumb is not None:
            one.thumbs.add(said.thumb)
        if said.correction is not None:
            one.corrections[said.correction.strip()] = None
    for row, _ in read_log(log):
        if row.id not in told:
            continue
        one = told.pop(row.id)
        if reason := one.conflict() or _useless(row, log):
            dropped[reason] += 1
        else:
            yield row, one
    if told:
        dropped["feedback on a call that is not in the log"] += len(told)


def _useless(row: LoggedRequest, log: Path) -> str:
    """Why nothing can be made of an answer, or nothing."""
    if row.prompt is None or row.answer is None or row.history is None:
        return "redacted: the log has no text"
    if row.status != 200 or not row.answer.strip() or not row.prompt.strip():
        return "no answer or no prompt"
    for picture in row.images:
        path = picture_file(log, picture.sha256)
        if not path.is_file() or hash_file(path) != picture.sha256:
            return "the picture was not kept"
    return ""


def _grouped(rows: Sequence[tuple[Path, LoggedRequest, _Told]], dropped: Counter[str]) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for _, row, told in rows:
        pictures = [picture.sha256 for picture in row.images]
        history = [turn.model_dump() for turn in row.history or ()]
        group = groups.setdefault(hash_json([pictures, history, row.prompt]), _Group())
        answer = (row.answer or "").strip()
        for correction in told.corrections:
            group.corrected.append((row, correction))
        if told.thumbs and not told.corrections:
            (group.up if told.thumbs == {"up"} else group.down).setdefault(answer, row)
    for group in groups.values():
        for answer in group.up.keys() & group.down.keys():
            dropped["one answer liked and disliked to the same prompt"] += 1
            del group.up[answer], group.down[answer]
    return groups


def _pairs(group: _Group, dropped: Counter[str]) -> Iterator[Pair]:
    """Each disliked answer once: against its correction, or against an answer that was liked."""
    disliked = group.down.keys() | {(row.answer or "").strip() for row, _ in group.corrected}
    made: set[tuple[str, str]] = set()
    for row, correction in group.corrected:
        if correction in disliked:
            dropped["a correction that was itself disliked"] += 1
            continue
        if ((row.answer or "").strip(), correction) in made:
            dropped["the same correction again"] += 1
            continue
        made.add(((row.answer or "").strip(), correction))
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
    # Only a correction changes words on purpose; two answers differ everywhere.
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


def _bring(source: Path, target: Path) -> None:
    """A picture into the dataset, in one piece."""
    if not target.exists():
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)
