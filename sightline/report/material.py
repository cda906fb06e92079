"""Inputs of a report: its directories, read and checked once.

`comparison` compares them, `page` shows them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.data.preference_dataset import read_pairs
from sightline.errors import InputError
from sightline.evals.comparison import Evaluation
from sightline.evals.directory import read_evaluation
from sightline.records.manifest import MANIFEST, Manifest, read_manifest
from sightline.records.rows import Pair
from sightline.train.log import LOG_NAME, StepRecord, read_log


@dataclass(frozen=True)
class ReportSource:
    """One input directory of the report, with the option that named it."""

    option: str
    directory: Path
    manifest: Manifest | None


@dataclass(frozen=True)
class Material:
    """All inputs. `trainings` has one log per run; it and `pairs` are empty if none were given."""

    base: Evaluation
    aligned: tuple[Evaluation, ...]
    trainings: tuple[tuple[StepRecord, ...], ...]
    pairs: tuple[Pair, ...]
    pairs_folder: Path | None
    sources: tuple[ReportSource, ...]


def read_material(
    base: Path, aligned: Sequence[Path], trainings: Sequence[Path] = (), pairs: Path | None = None
) -> Material:
    """Read all directories; benchmarks are in the order of the base model's evaluation.

    Raises:
        InputError: a directory is missing, or is not the output of the expected stage.
    """
    named = [("--base", base), *(("--aligned", path) for path in aligned), *(("--train", path) for path in trainings)]
    if pairs is not None:
        named.append(("--pairs", pairs))
    sources = tuple(ReportSource(option, path, _manifest(option, path)) for option, path in named)
    manifest = sources[0].manifest
    order = [str(name) for name in manifest.config.get("benchmarks", ())] if manifest else []
    return Material(
        base=read_evaluation(base, order),
        aligned=tuple(read_evaluation(path, order) for path in aligned),
        trainings=tuple(_log(path) for path in trainings),
        pairs=tuple(read_pairs(pairs)) if pairs is not None else (),
        pairs_folder=pairs,
        sources=sources,
    )


def _manifest(option: str, directory: Path) -> Manifest | None:
    if not directory.is_dir():
        raise InputError(f"{option} {directory} is not a directory; name the output directory of that stage.")
    return read_manifest(directory) if (directory / MANIFEST).exists() else None


def _log(directory: Path) -> tuple[StepRecord, ...]:
    steps = tuple(read_log(directory / LOG_NAME))
    if not steps:
        raise InputError(f"--train {directory} has no {LOG_NAME} with steps; name the output directory of a training.")
    return steps
