"""Pairs that are most like a given one: cosines of vectors of their texts.

The paper embeds with a model; `trigrams` (weighted by rarity) needs none, `sentence-transformers:DIRECTORY` is a local
one's embeddings.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sightline.data.entities.pairs import EntityPair
from sightline.errors import InputError
from sightline.pairs.similarity import EMBEDDER, embed

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
