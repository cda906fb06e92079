"""Reader of evaluation directories, which have one folder a benchmark.

Reading needs neither torch nor the benchmark's code, since samples, answers, scores and metrics are all records. `run`
writes the answers, `scoring` the rest; `report` and `study` compare directories.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from sightline.errors import InputError
from sightline.evals.metrics import AnyMetric
from sightline.records.rows import Answer, Estimate, Sample, Score
from sightline.records.store import read_json, read_rows

SAMPLES, ANSWERS, SCORES = "samples.jsonl", "answers.jsonl", "scores.jsonl"
METRICS, ESTIMATES, REMARKS = "metrics.json", "estimates.json", "remarks.json"

T = TypeVar("T")

_METRICS: TypeAdapter[Mapping[str, AnyMetric]] = TypeAdapter(dict[str, AnyMetric])
_ESTIMATES: TypeAdapter[Mapping[str, Estimate]] = TypeAdapter(dict[str, Estimate])
_REMARKS: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])


@dataclass(frozen=True)
class BenchmarkResult:
    """All records of one benchmark; image paths of `samples` are relative to `folder`.

    `remarks` are the caveats on how it was scored; evaluations of earlier versions have none.
    """

    name: str
    folder: Path
    samples: tuple[Sample, ...]
    answers: tuple[Answer, ...]
    scores: tuple[Score, ...]
    metrics: Mapping[str, AnyMetric]
    estimates: Mapping[str, Estimate]
    remarks: tuple[str, ...] = ()


def relocate_images(sample: Sample, source: Path, target: Path) -> Sample:
    """The sample with its image paths, relative to `source`, made relative to `target`."""
    images = tuple(os.path.relpath((source / image).resolve(), target.resolve()) for image in sample.images)
    return sample.model_copy(update={"images": images})


def read_result(directory: Path, name: str) -> BenchmarkResult:
    """The records of one benchmark of an evaluation directory.

    Raises:
        InputError: the directory lacks the benchmark, or one of its files is missing or broken.
    """
    folder = directory / name
    if not (folder / ESTIMATES).exists():
        found = ", ".join(sorted(path.parent.name for path in directory.glob(f"*/{ESTIMATES}"))) or "none"
        raise InputError(f"{directory} holds no finished benchmark {name!r} (there: {found}); run `sightline eval`.")
    return BenchmarkResult(
        name=name,
        folder=folder,
        samples=tuple(read_rows(folder / SAMPLES, Sample)),
        answers=tuple(read_rows(folder / ANSWERS, Answer)),
        scores=tuple(read_rows(folder / SCORES, Score)),
        metrics=_read_typed(folder / METRICS, _METRICS),
        estimates=_read_typed(folder / ESTIMATES, _ESTIMATES),
        remarks=_read_typed(folder / REMARKS, _REMARKS) if (folder / REMARKS).exists() else (),
    )


def read_evaluation(directory: Path, order: Sequence[str] = ()) -> dict[str, BenchmarkResult]:
    """Every finished benchmark of a directory, those in `order` first; raises an InputError if there is none."""
    names = benchmark_names(directory, order)
    if not names:
        raise InputError(f"{directory} holds no finished benchmark; run `sightline eval` with --out {directory}.")
    return {name: read_result(directory, name) for name in names}


def benchmark_names(directory: Path, order: Sequence[str] = ()) -> list[str]:
    """The benchmarks with estimates in `directory`: those in `order` first, the others by name."""
    found = {path.parent.name for path in directory.glob(f"*/{ESTIMATES}")}
    return [name for name in dict.fromkeys(order) if name in found] + sorted(found - set(order))


def _read_typed(path: Path, adapter: TypeAdapter[T]) -> T:
    try:
        return adapter.validate_python(read_json(path))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise InputError(f"{path}: {place}: {problem['msg']}; score the evaluation again.") from error
