"""Samples in and samples out, which all steps share: pairs read, the stage opened, rows written, replies in waves."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.builders.builder import sample_rng
from sightline.builders.similarity import EMBEDDER, embed
from sightline.data.samples import read_samples, samples_file
from sightline.data.terminal import Progress
from sightline.errors import InputError
from sightline.recipes.matching.annotators import Annotator, AnnotatorInput
from sightline.recipes.matching.entities.pairs import EntityPair, pair_of
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
        yield from annotator.reply([AnnotatorInput(text, _seed(sample, seed)) for sample, text in part])
        if progress is not None:
            progress(start + len(part), len(asked))


def _seed(sample: Sample, seed: int) -> int:
    """A seed of the sample's own, the same whatever it is asked together with."""
    return int(sample_rng(seed, sample, _PURPOSE).integers(2**31))


TRIGRAMS = "trigrams"


def cosines(asked: Sequence[EntityPair], pool: Sequence[EntityPair], measure: str) -> NDArray[np.float64]:
    """Cosines `[asked, pool]` between the texts of pairs, both records in one text.

    Raises:
        InputError: no such measure.
    """
    texts = ["\n".join(pair.texts) for pair in (*asked, *pool)]
    if measure == TRIGRAMS:
        from sklearn.feature_extraction.text import TfidfVectorizer  # here, since it takes a second to import

        table = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3)).fit_transform(texts)
        made: NDArray[np.float64] = (table[: len(asked)] @ table[len(asked) :].T).toarray()
        return made
    if measure.startswith(EMBEDDER):
        vectors = embed(measure.removeprefix(EMBEDDER), texts)
        return np.asarray(vectors[: len(asked)] @ vectors[len(asked) :].T, np.float64)
    raise InputError(f"similarity {measure!r} is unknown; use '{TRIGRAMS}' or '{EMBEDDER}DIRECTORY'")


def by_turns(likeness: NDArray[np.float64], count: int) -> list[int]:
    """Up to `count` columns: each row's nearest, then each row's second, and so on, none twice; of equals the first."""
    order = np.argsort(-likeness, axis=1, kind="stable")
    taken = dict.fromkeys(int(place) for rank in order.T for place in rank)
    return list(taken)[:count]
