"""The baseline of a monitor: an earlier log, or an evaluation converted to log rows.

An evaluation's pictures are measured as the proxy measures those of requests.
"""

from collections.abc import Iterator
from pathlib import Path

from sightline.data.images import open_image
from sightline.data.request_log import (
    is_log,
    is_refusal,
    log_file,
    log_numbers,
    measure_picture,
    plain_yes,
    read_log,
    text_stats,
)
from sightline.errors import InputError
from sightline.evals.directory import ANSWERS, SAMPLES, benchmark_names
from sightline.records.hashing import hash_file, hash_json
from sightline.records.ratings import LoggedPicture, LoggedRequest
from sightline.records.rows import IMAGE, Answer, Sample
from sightline.records.store import read_rows


def baseline_hash(place: Path, benchmarks: tuple[str, ...]) -> str:
    """A hash of a baseline's contents.

    Raises:
        InputError: `place` is neither a log nor an evaluation, or lacks a benchmark.
    """
    if is_log(place):
        files = [log_file(place, number) for number in log_numbers(place)]
    else:
        files = [place / name / part for name in _names(place, benchmarks) for part in (SAMPLES, ANSWERS)]
    return hash_json({str(path.relative_to(place)): hash_file(path) for path in files})


def read_baseline(place: Path, benchmarks: tuple[str, ...]) -> Iterator[LoggedRequest]:
    """The rows of a baseline; raises as `baseline_hash`, and for a broken row."""
    if is_log(place):
        yield from (row for row, _ in read_log(place) if row.status == 200)
        return
    for name in _names(place, benchmarks):
        folder = place / name
        answers = {row.sample_id: row for row in read_rows(folder / ANSWERS, Answer)}
        pictures: dict[str, LoggedPicture] = {}
        for sample in read_rows(folder / SAMPLES, Sample):
            if sample.id in answers:
                yield _row(f"{name}/{sample.id}", sample, answers[sample.id], folder, pictures)


def _names(place: Path, benchmarks: tuple[str, ...]) -> list[str]:
    found = benchmark_names(place, benchmarks) if place.is_dir() else []
    missing = [name for name in benchmarks if name not in found]
    if not found or missing:
        what = f"has no finished benchmark {missing[0]!r}" if missing else "is neither a log nor a finished evaluation"
        raise InputError(f"baseline {place} {what}; name a directory of `sightline serve --log` or `sightline eval`")
    return list(benchmarks) or found


def _row(key: str, sample: Sample, answer: Answer, folder: Path, pictures: dict[str, LoggedPicture]) -> LoggedRequest:
    for name in sample.images:
        if name not in pictures:
            # Paths in an evaluation may lead outside its folder, to the benchmark's pictures.
            path = (folder / name).resolve()
            opened = open_image(path, f"{folder / SAMPLES} (id {sample.id!r})")
            pictures[name] = measure_picture(opened, path.read_bytes())
    return LoggedRequest(
        id=key,
        time="",
        model="",
        images=tuple(pictures[name] for name in sample.images),
        history=sample.history,
        prompt=sample.prompt,
        answer=answer.text,
        prompt_stats=text_stats(sample.prompt.replace(IMAGE, " ")),
        answer_stats=text_stats(answer.text),
        yes=plain_yes(answer.text),
        refused=is_refusal(answer.text),
        finished=answer.finished,
        tokens=answer.tokens,
    )


def evaluation_samples(place: Path, benchmarks: tuple[str, ...]) -> Iterator[tuple[str, Sample, Path]]:
    """An evaluation's samples: row id, sample, and folder of its pictures; nothing for a log."""
    if is_log(place):
        return
    for name in _names(place, benchmarks):
        for sample in read_rows(place / name / SAMPLES, Sample):
            yield f"{name}/{sample.id}", sample, place / name
