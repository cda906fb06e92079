"""Helpers of all steps: reading pairs, annotating them in waves, and similarity between pairs."""

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
from sightline.recipes.matching.entities.pairs import EntityPair, read_pair
from sightline.records import Sample

_PURPOSE = 2710


def read_pairs(place: Path) -> list[tuple[Sample, EntityPair]]:
    """All samples with their pairs.

    Raises:
        InputError: a row that is not a sample of a pair, or no row.
    """
    path = samples_file(place)
    found = [(sample, read_pair(sample, str(path))) for sample in read_samples(place, require_reference=True)]
    if not found:
        raise InputError(f"{path} holds no samples; create some with `sightline match read`")
    return found


def annotate(
    annotator: Annotator,
    prompts: Sequence[tuple[Sample, str]],
    wave: int,
    seed: int,
    progress: Progress | None,
) -> Iterator[str | None]:
    """The reply to each prompt, in order, `wave` prompts at a time."""
    for start in range(0, len(prompts), wave):
        part = prompts[start : start + wave]
        yield from annotator.reply([AnnotatorInput(text, _seed(sample, seed)) for sample, text in part])
        if progress is not None:
            progress(start + len(part), len(prompts))


def _seed(sample: Sample, seed: int) -> int:
    """A seed of the sample only, independent of the other samples."""
    return int(sample_rng(seed, sample, _PURPOSE).integers(2**31))


TRIGRAMS = "trigrams"


def cosines(queries: Sequence[EntityPair], pool: Sequence[EntityPair], measure: str) -> NDArray[np.float64]:
    """Cosines `[queries, pool]` between the texts of pairs, both records in one text.

    Raises:
        InputError: unknown measure.
    """
    texts = ["\n".join(pair.texts) for pair in (*queries, *pool)]
    if measure == TRIGRAMS:
        from sklearn.feature_extraction.text import TfidfVectorizer  # imported here, since it takes a second

        table = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3)).fit_transform(texts)
        likeness: NDArray[np.float64] = (table[: len(queries)] @ table[len(queries) :].T).toarray()
        return likeness
    if measure.startswith(EMBEDDER):
        vectors = embed(measure.removeprefix(EMBEDDER), texts)
        return np.asarray(vectors[: len(queries)] @ vectors[len(queries) :].T, np.float64)
    raise InputError(f"similarity {measure!r} is unknown; use '{TRIGRAMS}' or '{EMBEDDER}DIRECTORY'")


def round_robin(likeness: NDArray[np.float64], count: int) -> list[int]:
    """Up to `count` columns: each row's nearest, then each row's second, ..., without repeats; of equals the first."""
    order = np.argsort(-likeness, axis=1, kind="stable")
    taken = dict.fromkeys(int(place) for rank in order.T for place in rank)
    return list(taken)[:count]
