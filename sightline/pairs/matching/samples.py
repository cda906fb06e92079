"""Samples in and samples out, which all steps share: pairs read, the stage opened, rows written, replies in waves."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sightline.data.entities.pairs import EntityPair, pair_of
from sightline.data.progress import Progress
from sightline.data.samples import read_samples, samples_file
from sightline.errors import InputError
from sightline.pairs.builder import rng_of
from sightline.pairs.matching.annotators import Annotator, Told
from sightline.records import Sample

_PURPOSE = 2710


def read_pairs(place: Path) -> list[tuple[Sample, EntityPair]]:
    """All samples with the pairs that they ask about.

    Raises:
        InputError: a row that is no sample of a pair, or no row.
    """
    path = samples_file(place)
    found = [(sample, pair_of(sample, str(path))) for sample in read_samples(place, require_reference=True)]
    if not found:
        raise InputError(f"{path} holds no samples; make some with `sightline match read`")
    return found


def replies(
    annotator: Annotator,
    asked: Sequence[tuple[Sample, str]],
    wave: int,
    seed: int,
    progress: Progress | None,
) -> Iterator[str | None]:
    """The reply to each text, in order, so many asked together."""
    for start in range(0, len(asked), wave):
        part = asked[start : start + wave]
        yield from annotator.reply([Told(text, _seed(sample, seed)) for sample, text in part])
        if progress is not None:
            progress(start + len(part), len(asked))


def _seed(sample: Sample, seed: int) -> int:
    """A seed of the sample's own, the same whatever it is asked together with."""
    return int(rng_of(seed, sample, _PURPOSE).integers(2**31))
