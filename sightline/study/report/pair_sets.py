"""Numbers on the sets of pairs that a study's arms trained on.

They come from the manifests, and from the texts: lengths, which a model may learn instead of the intended preference.
`report.gallery` shows examples.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from sightline.data.preference_dataset import read_pairs
from sightline.errors import InputError
from sightline.records.manifest import MANIFEST, read_manifest
from sightline.records.rows import Pair, Row
from sightline.study.report.ingredients import called
from sightline.study.results import Evidence


class PairSetSummary(Row):
    """Pairs of one name, means over the seeds that they were built for.

    `counts`, `dropped` and `numbers` are the manifest's; `arms` those that trained on them. The rest is of the texts:
    mean words, and the share of pairs whose chosen answer is the longer one (0.5: length carries no signal).
    """

    name: str
    seeds: int
    arms: tuple[str, ...]
    counts: dict[str, float]
    dropped: dict[str, float]
    numbers: dict[str, float]
    chosen_words: float | None
    rejected_words: float | None
    chosen_longer: float | None


class PairFolder(NamedTuple):
    """The pairs of the first seed, to show some of them."""

    name: str
    pairs: tuple[Pair, ...]
    folder: Path


def pair_sets(evidence: Evidence) -> tuple[tuple[PairSetSummary, ...], list[PairFolder]]:
    """Every set of pairs that a finished training of the study used, in the order of the arms."""
    keys: dict[str, dict[str, None]] = {}
    arms: dict[str, dict[str, None]] = {}
    for run in evidence.plan.runs:
        key = evidence.plan.jobs[run.train].inputs.get("pairs")
        done = run.train in evidence.entries and evidence.entries[run.train].state == "done"
        if key is not None and done and run.arm not in evidence.missing:
            name = called(evidence, key) or key
            keys.setdefault(name, {})[key] = None
            arms.setdefault(name, {})[run.arm] = None
    sets, folders = [], []
    for name, found in keys.items():
        places = [evidence.folder(key) if key in evidence.plan.jobs else Path(key) for key in found]
        read = [_read(place) for place in places]
        sets.append(_pair_set(name, tuple(arms[name]), places, read))
        folders.append(PairFolder(name, read[0], places[0]))
    return tuple(sets), folders


def _read(folder: Path) -> tuple[Pair, ...]:
    """The pairs; empty if the directory was moved or deleted since."""
    try:
        return tuple(read_pairs(folder))
    except InputError:
        return ()


def _pair_set(
    name: str, arms: tuple[str, ...], places: Sequence[Path], read: Sequence[tuple[Pair, ...]]
) -> PairSetSummary:
    manifests = [read_manifest(place) for place in places if (place / MANIFEST).exists()]
    pairs = [pair for found in read for pair in found]
    lengths = [(len(pair.chosen.split()), len(pair.rejected.split())) for pair in pairs]
    return PairSetSummary(
        name=name,
        seeds=len(places),
        arms=arms,
        counts=_means([manifest.counts for manifest in manifests])
        or ({"pairs": len(pairs) / len(places)} if pairs else {}),
        dropped=_means([manifest.dropped for manifest in manifests], absent=0.0),
        numbers=_means([manifest.numbers for manifest in manifests]),
        chosen_words=_mean(chosen for chosen, _ in lengths),
        rejected_words=_mean(rejected for _, rejected in lengths),
        chosen_longer=_mean(1.0 if c > r else 0.5 if c == r else 0.0 for c, r in lengths),
    )


def _means(found: Sequence[Mapping[str, float]], absent: float | None = None) -> dict[str, float]:
    """The mean of each number over the manifests that have it; with `absent`, missing ones count as that value."""
    names = dict.fromkeys(name for numbers in found for name in numbers)
    means = {}
    for name in names:
        values = [numbers.get(name, absent) for numbers in found]
        means[name] = fmean(value for value in values if value is not None)
    return means


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None
